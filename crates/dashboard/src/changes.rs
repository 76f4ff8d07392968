//! Tells open pages that something they may show has changed.
//!
//! One task looks for all pages, each second, and only while a page listens. What it finds is told
//! to those whose sight contains the tenant. A page then asks again for what it shows: no row goes
//! this way.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::{Extension, RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{
        IntoResponse as _, Response,
        sse::{Event, Sse},
    },
};
use serde_json::json;
use service::time::{now_us, stamp};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, watch},
    time::{Instant, Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use warehouse::{
    Warehouse,
    sight::Sight,
    watch::{Change, Watch},
};

use crate::{Source, access::Asker, api::parameters, problem::Problem};

/// How often the task looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a page hears that the connection lives. It also is how soon one ends whose token or
/// log-in has ended.
const BEAT_EVERY: Duration = Duration::from_secs(5);
/// Most pages that listen at once.
pub const LISTENERS_MAX: usize = 256;
/// Findings kept for a page that does not take them. One that misses some hears of every topic.
const KEPT: usize = 16;

/// What a page can show.
const TOPICS: [&str; 7] = ["alerts", "fleet", "sessions", "cycles", "pipeline", "quarantine", "overview"];

/// The tables that are watched, and the topics that show their rows.
const WATCHED: &[(&str, &[&str])] = &[
    ("accuracy_verdicts", &["fleet"]),
    ("alert_history", &["alerts", "fleet", "overview"]),
    ("alerts", &["alerts", "fleet", "overview"]),
    ("calibrations", &["fleet"]),
    ("cycle_assessments", &["cycles"]),
    ("cycle_indicators", &["cycles"]),
    ("cycle_releases", &["cycles"]),
    ("device_status", &["fleet", "overview"]),
    ("devices", &["fleet", "overview"]),
    ("drift", &["fleet"]),
    ("faults", &["fleet"]),
    ("incidents", &["alerts"]),
    ("injections", &["fleet", "sessions", "pipeline", "overview"]),
    ("loader_commits", &["fleet", "pipeline", "overview"]),
    ("mounts", &["sessions"]),
    ("preparations", &["sessions"]),
    ("quarantine", &["quarantine", "pipeline", "overview"]),
    ("quarantine_replays", &["quarantine", "pipeline"]),
    ("sessions", &["sessions", "overview"]),
    ("sterility_verdicts", &["cycles", "fleet", "sessions"]),
    ("sterilization_cycles", &["cycles"]),
    ("sterilization_items", &["cycles"]),
    ("sterilization_samples", &["cycles"]),
];

/// A change of tables, and what pages show of them.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    topics: &'static [&'static str],
    /// None = what changed is not known.
    tenants: Option<BTreeSet<String>>,
}

/// The pages that listen.
#[derive(Debug)]
pub struct Changes {
    found: broadcast::Sender<Arc<Vec<Found>>>,
    /// A page has begun to listen.
    begun: Notify,
    /// Whether every change from now on is told.
    looking: watch::Sender<bool>,
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Changes {
    /// Nobody listens yet. Every stream ends at `shutdown`.
    pub fn new(shutdown: CancellationToken) -> Self {
        let (found, _) = broadcast::channel(KEPT);
        Self {
            found,
            begun: Notify::new(),
            looking: watch::Sender::new(false),
            places: Arc::new(Semaphore::new(LISTENERS_MAX)),
            shutdown,
        }
    }

    /// Looks for changes while a page listens, until the shutdown.
    pub async fn watch(&self, warehouse: &Warehouse) {
        let looking = async {
            let mut is_known = true;
            loop {
                while self.found.receiver_count() == 0 {
                    self.begun.notified().await;
                }
                let looked = self.look(warehouse, is_known).await;
                is_known = looked.is_ok();
                if let Err(error) = looked {
                    self.looking.send_replace(false);
                    tracing::warn!(%error, "pages cannot be told of changes; it is tried again in a second");
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        };
        tokio::select! {
            () = looking => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    /// Looks until nobody listens. Pages that listened while nobody could look are told so.
    async fn look(&self, warehouse: &Warehouse, is_known: bool) -> Result<(), warehouse::Error> {
        let tables: Vec<_> = WATCHED.iter().map(|(table, _)| *table).collect();
        let mut watching = Watch::begin(warehouse, &tables).await?;
        if !is_known {
            let _ = self.found.send(Arc::new(vec![Found { topics: &TOPICS, tenants: None }]));
        }
        loop {
            // In this order a page that begins to listen is either counted, or waits for the next
            // look to begin.
            self.looking.send_replace(false);
            if self.found.receiver_count() == 0 {
                return Ok(());
            }
            self.looking.send_replace(true);
            tokio::time::sleep(LOOK_EVERY).await;
            let topics = |table| WATCHED.iter().find(|(name, _)| *name == table).map_or(&[][..], |(_, topics)| *topics);
            let changes = watching.look(warehouse).await?;
            let found: Vec<_> = changes
                .into_iter()
                .map(|Change { table, tenants }| Found { topics: topics(table), tenants: Some(tenants) })
                .collect();
            if !found.is_empty() {
                // The last page may have gone.
                let _ = self.found.send(Arc::new(found));
            }
        }
    }
}

/// What somebody with this sight is told.
fn topics(found: &[Found], sight: &Sight) -> BTreeSet<&'static str> {
    let is_seen = |change: &&Found| match sight {
        Sight::All => true,
        Sight::Tenants(own) => {
            change.tenants.as_ref().is_none_or(|tenants| own.iter().any(|tenant| tenants.contains(tenant)))
        }
        // What a manufacturer sees is no finer than a day.
        Sight::Manufacturer(_) => false,
    };
    found.iter().filter(is_seen).flat_map(|change| change.topics.iter().copied()).collect()
}

/// One page that listens.
struct Listener {
    source: Arc<Source>,
    headers: HeaderMap,
    sight: Sight,
    found: broadcast::Receiver<Arc<Vec<Found>>>,
    /// Whether every change from now on is told; none once the page knows.
    looking: Option<watch::Receiver<bool>>,
    beat: Interval,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// The next event; none if the stream ends.
    async fn next(&mut self) -> Option<Event> {
        let changes = &self.source.changes;
        loop {
            let topics = tokio::select! {
                biased;
                () = changes.shutdown.cancelled() => return None,
                () = begun(&mut self.looking) => {
                    self.looking = None;
                    return Some(event("beat", &json!({ "at": stamp(now_us()) })));
                }
                _ = self.beat.tick() => {
                    // The token or the log-in may have ended since.
                    self.source.access.asker(&self.headers).ok()?;
                    return Some(event("beat", &json!({ "at": stamp(now_us()) })));
                }
                found = self.found.recv() => match found {
                    Ok(found) => topics(&found, &self.sight),
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        topics(&[Found { topics: &TOPICS, tenants: None }], &self.sight)
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            };
            if !topics.is_empty() {
                return Some(event("changed", &json!({ "topics": topics, "at": stamp(now_us()) })));
            }
        }
    }
}

/// Waits until every change is told; for ever if that is known.
async fn begun(looking: &mut Option<watch::Receiver<bool>>) {
    if let Some(looking) = looking
        && looking.wait_for(|looking| *looking).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

fn event(name: &str, data: &serde_json::Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

/// Tells a page of changes until it goes.
pub async fn changes(
    State(source): State<Arc<Source>>,
    Extension(asker): Extension<Asker>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    listen(source, asker, query.as_deref(), headers).unwrap_or_else(Problem::into_response)
}

fn listen(source: Arc<Source>, asker: Asker, query: Option<&str>, headers: HeaderMap) -> Result<Response, Problem> {
    let sight = match parameters::query(query, &["tenant"])?.get("tenant") {
        None => asker.sight,
        Some(tenant) => asker.sight.of_tenant(tenant).ok_or_else(Problem::not_found)?,
    };
    let Ok(place) = Arc::clone(&source.changes.places).try_acquire_owned() else {
        let detail = format!("{LISTENERS_MAX} pages listen already; ask for what you show now and then, and try again");
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-listeners", detail);
        return Err(Problem { retry_after: Some(BEAT_EVERY), ..problem });
    };
    let found = source.changes.found.subscribe();
    source.changes.begun.notify_one();
    // Whoever asks for what it shows after the first beat misses nothing.
    let looking = Some(source.changes.looking.subscribe());
    let mut beat = tokio::time::interval_at(Instant::now() + BEAT_EVERY, BEAT_EVERY);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let listener = Listener { source, headers, sight, found, looking, beat, _place: place };
    let events = futures::stream::unfold(listener, async |mut listener| {
        let event = listener.next().await?;
        Some((Ok::<_, Infallible>(event), listener))
    });
    let mut response = Sse::new(events).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy that waits for more would tell nothing.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_sees_a_tenant_is_told_of_it() {
        let found = [
            Found { topics: &["alerts", "overview"], tenants: Some(BTreeSet::from(["acme".to_owned()])) },
            Found { topics: &["cycles"], tenants: Some(BTreeSet::from(["other".to_owned()])) },
            Found { topics: &["pipeline"], tenants: Some(BTreeSet::new()) },
        ];
        let told = |sight: Sight| topics(&found, &sight).into_iter().collect::<Vec<_>>();
        assert_eq!(told(Sight::All), ["alerts", "cycles", "overview", "pipeline"]);
        assert_eq!(told(Sight::Tenants(vec!["acme".to_owned()])), ["alerts", "overview"]);
        assert!(told(Sight::Tenants(vec!["third".to_owned()])).is_empty());
        assert!(told(Sight::Manufacturer("acme".to_owned())).is_empty());
        let unknown = [Found { topics: &TOPICS, tenants: None }];
        assert_eq!(topics(&unknown, &Sight::Tenants(vec!["acme".to_owned()])).len(), TOPICS.len());
        assert!(topics(&unknown, &Sight::Manufacturer("acme".to_owned())).is_empty());
    }

    #[test]
    fn every_watched_table_is_one_and_every_topic_is_known() {
        for (table, topics) in WATCHED {
            let kind = warehouse::schema::RELATIONS.iter().find(|(name, _)| name == table).map(|(_, kind)| *kind);
            assert!(kind.is_some_and(|kind| kind != warehouse::schema::Kind::View), "{table}");
            assert!(topics.iter().all(|topic| TOPICS.contains(topic)), "{table}");
        }
        assert!(TOPICS.iter().all(|topic| WATCHED.iter().any(|(_, topics)| topics.contains(topic))));
    }
}
