#!/bin/sh
# The least rights of doseline's roles in Kafka, written by `doseline grants --kafka`. It can be run
# again at any time. The cluster must refuse whom no rule names: authorizer.class.name =
# org.apache.kafka.metadata.authorizer.StandardAuthorizer, allow.everyone.if.no.acl.found = false.
#
#   BOOTSTRAP=kafka-1:9092 COMMAND_CONFIG=admin.properties sh acls.sh
set -eu
: "${BOOTSTRAP:?HOST:PORT of a broker}" "${COMMAND_CONFIG:?properties of a user that may alter rules}"
allow() { "${KAFKA_ACLS:-kafka-acls.sh}" --bootstrap-server "$BOOTSTRAP" --command-config "$COMMAND_CONFIG" --add "$@"; }
allow --allow-principal User:doseline_migrate --operation Create --operation DescribeConfigs --topic doseline.reports.v1 --topic doseline.status.v1 --topic doseline.quarantine.v1 --topic doseline.alerts.v1 --topic doseline.commands.v1
allow --allow-principal User:doseline_migrate --operation Read --topic doseline.reports.v1 --topic doseline.status.v1 --topic doseline.quarantine.v1 --topic doseline.commands.v1
allow --allow-principal User:doseline_migrate --operation Describe --group doseline-probe --group doseline-reread
allow --allow-principal User:doseline_bridge --operation Write --topic doseline.reports.v1 --topic doseline.status.v1 --topic doseline.quarantine.v1
allow --allow-principal User:doseline_load --operation Read --operation DescribeConfigs --topic doseline.reports.v1 --topic doseline.status.v1 --topic doseline.quarantine.v1 --topic doseline.commands.v1
allow --allow-principal User:doseline_load --operation Write --topic doseline.quarantine.v1
allow --allow-principal User:doseline_load --operation Read --group doseline-load
allow --allow-principal User:doseline_load --operation Describe --group doseline-probe --group doseline-reread
allow --allow-principal User:doseline_load --operation Read --group doseline-load-give-up- --resource-pattern-type prefixed
allow --allow-principal User:doseline_monitor --operation Write --topic doseline.alerts.v1
allow --allow-principal User:doseline_serve --operation Write --topic doseline.reports.v1 --topic doseline.status.v1 --topic doseline.commands.v1
allow --allow-principal User:doseline_operate --operation Read --operation DescribeConfigs --topic doseline.reports.v1 --topic doseline.status.v1 --topic doseline.quarantine.v1 --topic doseline.commands.v1
allow --allow-principal User:doseline_operate --operation Write --topic doseline.reports.v1 --topic doseline.status.v1 --topic doseline.commands.v1
allow --allow-principal User:doseline_operate --operation Describe --group doseline-load
allow --allow-principal User:doseline_operate --operation Describe --group doseline-probe --group doseline-reread
allow --allow-principal User:doseline_operate --operation Read --group doseline-load-give-up- --resource-pattern-type prefixed
