//! Alerts reach an Alertmanager that fails at first. Each condition gives one alert, and later one
//! notice of its end.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

use harness::{Kafka, poll};
use monitor::{Monitor, Options, alerts::notification};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{Rig, sterility::Facts};

const SOON: Duration = Duration::from_secs(180);

/// Collects what is posted, and answers 503 to the first `refuse` requests.
fn alertmanager(refuse: usize) -> (String, Arc<Mutex<Vec<Vec<Value>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/api/v2/alerts", listener.local_addr().expect("its address"));
    let taken: Arc<Mutex<Vec<Vec<Value>>>> = Arc::default();
    let requests = taken.clone();
    std::thread::spawn(move || {
        let mut refused = 0;
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut reader = BufReader::new(stream.try_clone().expect("the same connection"));
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a line");
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("the body");
            let answer = if refused < refuse {
                refused += 1;
                "503 Service Unavailable"
            } else {
                requests.lock().expect("not poisoned").push(serde_json::from_slice(&body).expect("JSON"));
                "200 OK"
            };
            let _ = write!(stream, "HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (url, taken)
}

fn options(url: &str) -> Options {
    let interval = Duration::from_millis(100);
    let notification =
        notification::Options { webhook: Some(url.to_owned()), interval, ..notification::Options::default() };
    Options { interval, notification, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn alertmanager_hears_of_each_condition_once_and_that_it_is_over() {
    let rig = Rig::start().await;
    let facts = Facts(&rig);
    facts.policies();
    facts.needle("N1", "a", 1);
    facts.needle("N1", "b", 5);
    let (url, taken) = alertmanager(3);
    let shutdown = CancellationToken::new();
    let monitor = Monitor::bind(options(&url), rig.warehouse.clone()).await.expect("a monitor");
    let running = tokio::spawn(monitor.run(shutdown.clone()));
    let told = || taken.lock().expect("not poisoned").concat();
    let key = "sterility-2/acme/item/N1";
    poll(SOON, "the alert", || if told().is_empty() { Err("nothing yet".to_owned()) } else { Ok(()) });
    let first = told();
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(first[0]["labels"]["alert_key"], key);
    assert_eq!(first[0]["labels"]["severity"], "critical");
    assert!(first[0]["endsAt"].as_str() > first[0]["startsAt"].as_str(), "{first:?}");

    // After a restart the notice is repeated under the same labels, and nothing is recorded twice.
    shutdown.cancel();
    running.await.expect("it ends").expect("without an error");
    let shutdown = CancellationToken::new();
    let monitor = Monitor::bind(options(&url), rig.warehouse.clone()).await.expect("a monitor");
    let running = tokio::spawn(monitor.run(shutdown.clone()));
    poll(SOON, "the repetition", || if told().len() < 2 { Err("not yet".to_owned()) } else { Ok(()) });
    assert!(told().iter().all(|alert| alert["labels"] == first[0]["labels"]), "one alert for one condition");
    // The delivery is recorded after it was confirmed.
    poll(SOON, "one record", || match rig.clickhouse.number("SELECT count() FROM doseline.alert_deliveries") {
        1 => Ok(()),
        count => Err(format!("{count} records")),
    });

    rig.acknowledge(key, "client informed");
    let resolved = "SELECT count() FROM doseline.alert_deliveries WHERE status = 'resolved'";
    poll(SOON, "the end of it", || match rig.clickhouse.number(resolved) {
        1 => Ok(()),
        count => Err(format!("{count} resolved")),
    });
    let last = told().pop().expect("a notice");
    assert_eq!(last["labels"], first[0]["labels"]);
    assert!(last["endsAt"].as_str() < first[0]["endsAt"].as_str(), "{last}");
    shutdown.cancel();
    running.await.expect("it ends").expect("without an error");
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_gets_a_record_for_each_change() {
    let kafka = Kafka::start();
    kafka.create_topic(notification::TOPIC, 1, &[]);
    kafka.wait_until_in_sync(&[notification::TOPIC]);
    let rig = Rig::start().await;
    let facts = Facts(&rig);
    facts.policies();
    facts.needle("N1", "a", 1);
    facts.needle("N1", "b", 5);
    let target = notification::Kafka { brokers: kafka.bootstrap(), properties: service::kafka::Properties::default() };
    let interval = Duration::from_millis(100);
    let notification = notification::Options { kafka: Some(target), interval, ..notification::Options::default() };
    let options = Options { interval, notification, ..Options::default() };
    let shutdown = CancellationToken::new();
    let monitor = Monitor::bind(options, rig.warehouse.clone()).await.expect("a monitor");
    let running = tokio::spawn(monitor.run(shutdown.clone()));
    let records = |count: usize| {
        poll(SOON, "the records", || match kafka.records(notification::TOPIC) {
            records if records.len() == count => Ok(records),
            records => Err(format!("{} records", records.len())),
        })
    };
    records(1);
    let key = "sterility-2/acme/item/N1";
    rig.acknowledge(key, "client informed");
    let said: Vec<Value> =
        records(2).iter().map(|record| serde_json::from_slice(&record.value).expect("JSON")).collect();
    let states: Vec<_> = said.iter().map(|said| (said["status"].as_str(), said["alert_key"].as_str())).collect();
    assert_eq!(states, [(Some("firing"), Some(key)), (Some("resolved"), Some(key))]);
    assert_eq!(said[0]["fingerprint"], said[1]["fingerprint"]);
    shutdown.cancel();
    running.await.expect("it ends").expect("without an error");
}
