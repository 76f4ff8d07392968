//! Properties of the real engine that the batch machine relies on.

use harness::ClickHouse;
use telemetry::v1;
use warehouse::{
    Warehouse,
    columns::{Block, Common, Commons, Injections, Origin, Provenance},
    migrate,
};

async fn migrated(clickhouse: &ClickHouse) -> Warehouse {
    let warehouse = Warehouse::new(clickhouse.warehouse_options()).expect("a valid address");
    migrate::migrate(&warehouse, migrate::Options::default()).await.expect("migrate");
    warehouse
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_keeps_the_contract() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    load::contract::check(&warehouse, 1).await;
}

const COMMON: Common<'static> = Common {
    tenant: "acme",
    site: "berlin",
    device: "pen-1",
    time_source: "DEVICE",
    model: "pen",
    firmware: "1.0",
    session_id: "00112233445566778899aabbccddeeff",
    clock: "SYNCED",
    dose_calibration_id: "c1",
    depth_calibration_id: "",
    preparation_id: "",
    operator_id: "",
    mounts: &[],
};

fn origin(common: u32) -> Origin<'static> {
    Origin { common, boot_id: 1 << 63, received_at: 1_750_000_000_000_000, kafka_offset: 7, operator_id: "", flags: 0 }
}

fn provenance(batch: u64) -> Provenance {
    Provenance { ingest_day: 20_300, incarnation: 1, partition: 3, batch }
}

fn block(rows: u64) -> Block {
    let mut commons = Commons::default();
    let origin = origin(commons.add(&COMMON));
    let mut injections = Injections::with_capacity(rows as usize);
    for seq in 1..=rows {
        let injection = v1::Injection {
            injection_no: Some(seq),
            delivered_nl: (seq % 3 > 0).then_some(20_000 + seq % 100),
            pressure_pa: Some(-5),
            mode: (seq % 5) as i32,
            ..Default::default()
        };
        injections.push(&origin, seq, 1_750_000_000_000_000 + seq as i64, &injection);
    }
    injections.finish(provenance(100), &commons).expect("there are rows")
}

/// Columns have keys of one, two or four bytes for their texts. The engine adds an empty text to a
/// dictionary that has none.
#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_distinct_texts_arrives() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    for texts in [1, 126, 127, 128, 255, 256, 257, 32_766, 32_767, 32_768, 65_535, 65_536] {
        let (mut commons, mut injections) = (Commons::default(), Injections::default());
        for seq in 1..=texts {
            let (device, operator) = (format!("d{seq}"), if seq == texts { String::new() } else { format!("o{seq}") });
            let common = commons.add(&Common { device: &device, operator_id: &operator, ..COMMON });
            injections.push(&origin(common), seq, 1_750_000_000_000_000, &v1::Injection::default());
        }
        let block = injections.finish(provenance(texts), &commons).expect("there are rows");
        warehouse.insert_block(&block, 0).await.expect("insert");
        let sql = format!(
            "SELECT count(), countIf(device = 'd' || toString(seq)), countIf(operator_id = 'o' || toString(seq)), \
             countIf(operator_id = ''), countIf(tenant = 'acme') FROM doseline.injections WHERE batch = {texts}"
        );
        assert_eq!(clickhouse.query(&sql), format!("{texts}\t{texts}\t{}\t1\t{texts}", texts - 1), "{texts} texts");
    }
}

/// Two blocks would have two tokens, and a repeated insert would write the rows of the first
/// attempt twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_block_is_one_part_and_is_taken_once() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    clickhouse.query("SYSTEM STOP MERGES doseline.injections");
    let block = block(150_000);
    for _ in 0..3 {
        warehouse.insert_block(&block, 0).await.expect("insert");
    }
    let parts = "SELECT count(), sum(rows), max(level) FROM system.parts \
                 WHERE database = 'doseline' AND table = 'injections' AND active";
    assert_eq!(clickhouse.query(parts), "1\t150000\t0");
    let sql = "SELECT count(), uniqExact(seq), min(boot_id), sum(delivered_nl), countIf(delivered_nl IS NULL), \
               any(session_id), min(at), max(at), groupUniqArray(pressure_pa), arraySort(groupUniqArray(toString(mode))), \
               any(ingest_day), any(kafka_partition), any(batch), any(batch_hash) FROM doseline.injections";
    let delivered: u64 = (1..=150_000u64).filter(|seq| seq % 3 > 0).map(|seq| 20_000 + seq % 100).sum();
    let expected = format!(
        "150000\t150000\t9223372036854775808\t{delivered}\t50000\t00112233445566778899aabbccddeeff\t\
         2025-06-15 15:06:40.000001\t2025-06-15 15:06:40.150000\t[-5]\t['','4','BURST','CONTINUOUS','SINGLE']\t\
         2025-07-31\t3\t100\t{}",
        block.hash()
    );
    assert_eq!(clickhouse.query(sql), expected);
}

/// The deduplication log survives the end of the engine, also when it is killed. Late writers are
/// shut out by it.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_outlive_the_engine() {
    let mut clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let block = block(1_000);
    warehouse.insert_block(&block, 0).await.expect("insert");
    clickhouse.kill();
    clickhouse.start_again();
    warehouse.insert_block(&block, 0).await.expect("insert again");
    assert_eq!(clickhouse.query("SELECT count() FROM doseline.injections"), "1000");
}
