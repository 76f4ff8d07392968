// Produces three records with kafkajs, then reads a topic as a group from its beginning and prints the values.
//
// Usage: node kafkajs.js ADDRESS TOPIC COUNT, with kafkajs on NODE_PATH.
const { CompressionTypes, Kafka, logLevel } = require("kafkajs");

const [address, topic, count] = process.argv.slice(2);
const kafka = new Kafka({ clientId: "kafkajs", brokers: [address], logLevel: logLevel.ERROR });

async function main() {
  const producer = kafka.producer();
  await producer.connect();
  const messages = [0, 1, 2].map((number) => ({ value: `kafkajs ${number}` }));
  await producer.send({ topic, acks: -1, compression: CompressionTypes.GZIP, messages });
  await producer.disconnect();

  const consumer = kafka.consumer({ groupId: "kafkajs" });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  let left = Number(count);
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`${left} records did not come`)), 60_000).unref();
    consumer.run({
      eachMessage: async ({ message }) => {
        console.log(message.value.toString());
        left -= 1;
        if (left === 0) resolve();
      },
    });
  });
  await consumer.disconnect();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
