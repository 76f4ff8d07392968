//! Each rule with a breach and a near miss. The order of facts does not matter.

use analysis::gs1;
use proptest::prelude::*;
use warehouse::{
    states::{Decision, IdKind, IndicatorKind, IndicatorResult, Outcome, Purpose, RinseWater, Slot, VerdictState},
    sterility::{
        Component, Cycle, Indicator, Load, LotExpiry, Mount, Policy, Recall, Registry, Release, Reprocessing, Shots,
        Use,
    },
    verdicts::Verdict,
};

use super::{
    assessment::Assessments,
    conditions::condition,
    curve::Physical,
    item::{self, ItemFacts},
    mount::{self, MountFacts},
    rules::{Clock, RegistryIndex},
    session::{self, SessionFacts},
    sterilizer::{self, SterilizerFacts},
};

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
/// A Monday long ago; "now" is a year later unless a test says otherwise.
const T0: i64 = 1_767_571_200_000_000;
const NOW: i64 = T0 + 365 * DAY;

/// A small set of facts, in any order.
#[derive(Clone, Debug)]
struct World {
    facts: Vec<Fact>,
    registry: Registry,
    now: i64,
}

#[derive(Clone, Debug)]
enum Fact {
    Mount(Mount),
    Use(Use),
    Shots(Shots),
    Cycle(Cycle, Outcome),
    Load(Load),
    Indicator(Indicator),
    Release(Release),
    Reprocessing(Reprocessing),
    Component(Component),
}

macro_rules! all {
    ($world:expr, $kind:ident) => {
        $world
            .facts
            .iter()
            .filter_map(|fact| if let Fact::$kind(fact) = fact { Some(fact) } else { None })
            .collect::<Vec<_>>()
    };
}

fn text(text: &str) -> String {
    text.to_owned()
}

impl World {
    fn new() -> Self {
        Self { facts: Vec::new(), registry: Registry::default(), now: NOW }
    }

    fn policy(mut self, name: &str, value: &str) -> Self {
        self.registry.policies.push(Policy { tenant: text("acme"), name: text(name), value: text(value) });
        self
    }

    fn recall(mut self, udi_di: &str, lot: &str) -> Self {
        let recall = Recall { recall_id: text("R1"), udi_di: text(udi_di), lot: text(lot), reason: text("endotoxin") };
        self.registry.recalls.push(recall);
        self
    }

    fn at(mut self, now: i64) -> Self {
        self.now = now;
        self
    }

    fn fact(mut self, fact: Fact) -> Self {
        self.facts.push(fact);
        self
    }

    /// A use of an item in a session at an hour, with its mounting, changed by `change`.
    fn uses_mount(self, item: &str, session: &str, hour: i64, mount: &str, change: impl FnOnce(&mut Mount)) -> Self {
        let mut mounted = Mount {
            tenant: text("acme"),
            site: text("paris"),
            device: text("pen-1"),
            mount_id: text(mount),
            at: T0 + hour * HOUR,
            session_id: text(session),
            slot: Slot::Needle,
            item_id: text(item),
            item_key: gs1::item(item),
            id_kind: IdKind::Serial,
            udi_di: text("di-1"),
            lot: text("L1"),
            reusable: Some(false),
            pack_intact: Some(true),
            synced: true,
            ..Mount::default()
        };
        change(&mut mounted);
        let used = Use {
            tenant: text("acme"),
            site: text("paris"),
            device: mounted.device.clone(),
            session_id: text(session),
            slot: mounted.slot,
            mount_id: text(mount),
            item_id: text(item),
            item_key: gs1::item(item),
            injections: 20,
            punctures: 20,
            first_at: T0 + hour * HOUR + HOUR / 10,
            last_at: T0 + hour * HOUR + HOUR / 2,
            undated: 0,
            lately: false,
        };
        self.fact(Fact::Mount(mounted)).fact(Fact::Use(used))
    }

    fn uses(self, item: &str, session: &str, hour: i64, change: impl FnOnce(&mut Mount)) -> Self {
        self.uses_mount(item, session, hour, &format!("m-{session}-{item}"), change)
    }

    /// A handpiece used in a session.
    fn handpiece(self, item: &str, session: &str, hour: i64) -> Self {
        self.uses(item, session, hour, reusable)
    }

    fn cycle_with(
        self,
        uid: &str,
        hour: i64,
        outcome: Outcome,
        items: &[&str],
        change: impl FnOnce(&mut Cycle),
    ) -> Self {
        let mut cycle = Cycle {
            tenant: text("acme"),
            site: text("paris"),
            device: text("steri-1"),
            boot_id: 1 << 32,
            seq: (hour + 100_000) as u64,
            cycle_uid: text(uid),
            at: T0 + hour * HOUR,
            day: ((T0 + hour * HOUR) / DAY) as u16,
            synced: true,
            recipe: text("134C-3min"),
            purpose: Purpose::Load,
            load_dry: Some(true),
            ..Cycle::default()
        };
        change(&mut cycle);
        let mut world = self.fact(Fact::Cycle(cycle, outcome));
        for item in items {
            world = world.fact(Fact::Load(Load {
                tenant: text("acme"),
                item_id: text(item),
                item_key: gs1::item(item),
                device: text("steri-1"),
                cycle_uid: text(uid),
                pack_id: String::new(),
            }));
        }
        world
    }

    fn cycle(self, uid: &str, hour: i64, outcome: Outcome, items: &[&str]) -> Self {
        self.cycle_with(uid, hour, outcome, items, |_| ())
    }

    fn released(self, uid: &str, hour: i64) -> Self {
        self.decided(uid, hour, Decision::Released)
    }

    fn decided(self, uid: &str, hour: i64, decision: Decision) -> Self {
        let (cycle_uid, at) = (text(uid), T0 + hour * HOUR);
        self.fact(Fact::Release(Release { tenant: text("acme"), cycle_uid, at, decision, actor: text("op") }))
    }

    fn indicator(self, uid: &str, hour: i64, kind: IndicatorKind, result: IndicatorResult) -> Self {
        let (cycle_uid, at) = (text(uid), T0 + hour * HOUR);
        self.fact(Fact::Indicator(Indicator { tenant: text("acme"), cycle_uid, kind, result, lot: String::new(), at }))
    }

    fn rinsed(self, item: &str, hour: i64, water: RinseWater) -> Self {
        self.fact(Fact::Reprocessing(Reprocessing {
            tenant: text("acme"),
            item_id: text(item),
            item_key: gs1::item(item),
            at: T0 + hour * HOUR,
            device: text("washer"),
            site: text("paris"),
            rinse_water: water,
        }))
    }

    /// Injections of a session with a needle mount and a mixture.
    fn shots(self, session: &str, hour: i64, needle: &str, mixture: &str) -> Self {
        self.fact(Fact::Shots(Shots {
            tenant: text("acme"),
            session_id: text(session),
            device: text("pen-1"),
            needle_mount_id: text(needle),
            preparation_id: text(mixture),
            site: text("paris"),
            injections: 7,
            first_at: T0 + hour * HOUR,
            last_at: T0 + hour * HOUR + HOUR / 2,
            undated: 0,
        }))
    }

    fn component(self, mixture: &str, lot: &str, expiry: &str, use_by_hour: i64) -> Self {
        self.fact(Fact::Component(Component {
            tenant: text("acme"),
            preparation_id: text(mixture),
            use_by: Some(T0 + use_by_hour * HOUR),
            udi_di: text("di-9"),
            lot: text(lot),
            expiry: text(expiry),
            container_id: text("vial-1"),
        }))
    }

    /// Gives every use the time of its receipt, as for a device whose clock is wrong.
    fn undated(mut self) -> Self {
        for fact in &mut self.facts {
            match fact {
                Fact::Mount(mount) => mount.synced = false,
                Fact::Use(used) => used.undated = used.injections,
                Fact::Shots(shots) => shots.undated = shots.injections,
                _ => {}
            }
        }
        self
    }

    /// Sets the end of every use.
    fn ended(mut self, last_at: i64) -> Self {
        for fact in &mut self.facts {
            if let Fact::Use(used) = fact {
                used.last_at = last_at;
            }
        }
        self
    }

    /// Judges everything unit by unit, as a pass does.
    fn verdicts(&self) -> Vec<Verdict> {
        let registry = RegistryIndex::new(&self.registry);
        let clock = Clock { now: self.now, late: 5_000_000, ahead: 300_000_000, age: 400 * DAY };
        let mut verdicts = Vec::new();
        let mut assessments = Assessments::new();
        let (tenant, device) = ("acme", "steri-1");
        let cycles: Vec<_> = self
            .facts
            .iter()
            .filter_map(|fact| if let Fact::Cycle(cycle, _) = fact { Some(cycle) } else { None })
            .collect();
        let physical = self.facts.iter().filter_map(|fact| match fact {
            Fact::Cycle(cycle, outcome) => Some((
                cycle.cycle_uid.as_str(),
                Physical { outcome: *outcome, reason: text("curve"), ..Physical::default() },
            )),
            _ => None,
        });
        let facts = SterilizerFacts {
            tenant,
            device,
            cycles,
            physical: physical.collect(),
            indicators: all!(self, Indicator),
            releases: all!(self, Release),
        };
        let evaluated = sterilizer::evaluate(&facts, &registry, clock);
        verdicts.extend(evaluated.verdicts);
        assessments
            .extend(evaluated.assessments.into_iter().map(|(uid, assessment)| ((text(tenant), uid), assessment)));
        let (mounts, uses, loads) = (all!(self, Mount), all!(self, Use), all!(self, Load));
        let reprocessings = all!(self, Reprocessing);
        let mut items: Vec<&str> = mounts.iter().map(|mount| mount.item_key.as_str()).collect();
        items.extend(uses.iter().map(|used| used.item_key.as_str()));
        items.extend(loads.iter().map(|load| load.item_key.as_str()));
        items.extend(reprocessings.iter().map(|reprocessing| reprocessing.item_key.as_str()));
        items.sort_unstable();
        items.dedup();
        for item_key in items {
            let facts = ItemFacts {
                tenant: "acme",
                item_key,
                mounts: mounts.iter().filter(|mount| mount.item_key == item_key).copied().collect(),
                uses: uses.iter().filter(|used| used.item_key == item_key).copied().collect(),
                loads: loads.iter().filter(|load| load.item_key == item_key).copied().collect(),
                reprocessings: reprocessings.iter().filter(|cleaning| cleaning.item_key == item_key).copied().collect(),
            };
            verdicts.extend(item::evaluate(&facts, &assessments, &registry, clock));
        }
        let mut names: Vec<(&str, &str)> = mounts.iter().map(|mount| (&*mount.device, &*mount.mount_id)).collect();
        names.extend(uses.iter().map(|used| (&*used.device, &*used.mount_id)));
        names.sort_unstable();
        names.dedup();
        for (device, mount_id) in names {
            let facts = MountFacts {
                tenant: "acme",
                device,
                mount_id,
                announced: mounts
                    .iter()
                    .filter(|mount| (&*mount.device, &*mount.mount_id) == (device, mount_id))
                    .copied()
                    .collect(),
                uses: uses
                    .iter()
                    .filter(|used| (&*used.device, &*used.mount_id) == (device, mount_id))
                    .copied()
                    .collect(),
            };
            verdicts.extend(mount::evaluate(&facts, &registry, clock));
        }
        let shots = all!(self, Shots);
        let mut sessions: Vec<&str> = shots.iter().map(|part| part.session_id.as_str()).collect();
        sessions.sort_unstable();
        sessions.dedup();
        for session_id in sessions {
            let of_session: Vec<_> = shots.iter().filter(|part| part.session_id == session_id).copied().collect();
            let facts = SessionFacts {
                tenant: "acme",
                session_id,
                mounts: mounts.iter().map(|mount| ((&*mount.device, &*mount.mount_id), *mount)).collect(),
                components: all!(self, Component),
                shots: of_session,
                ..SessionFacts::default()
            };
            verdicts.extend(session::evaluate(&facts, &registry, clock));
        }
        verdicts.sort_by(|left, right| (&left.unit, &left.verdict_key).cmp(&(&right.unit, &right.verdict_key)));
        verdicts
    }

    /// State, severity and sessions of each finding of a rule.
    fn rule(&self, rule: u8) -> Vec<String> {
        let of_rule = |verdict: &&Verdict| verdict.rule == rule;
        let line = |verdict: &Verdict| format!("{} {} {}", verdict.state, verdict.severity, verdict.sessions.join("+"));
        let mut lines: Vec<_> = self.verdicts().iter().filter(of_rule).map(line).collect();
        lines.sort_unstable();
        lines
    }

    #[track_caller]
    fn check(&self, rule: u8, expected: &[&str]) {
        assert_eq!(self.rule(rule), expected, "rule {rule}");
    }
}

fn reusable(mount: &mut Mount) {
    (mount.slot, mount.reusable, mount.udi_di) = (Slot::Handpiece, Some(true), text("di-2"));
}

const NONE: &[&str] = &[];
const PASSED: Outcome = Outcome::Passed;

#[test]
fn rule_1_injections_need_a_needle_mounted_in_their_session() {
    let world = World::new;
    world().shots("a", 1, "", "").check(1, &["CONFIRMED high a"]);
    world().uses_mount("N1", "a", 1, "m1", |_| ()).shots("a", 1, "m1", "").check(1, NONE);
    // Mounted in one session, used in the next.
    world().uses_mount("N1", "a", 1, "m1", |_| ()).shots("b", 2, "m1", "").check(1, &["CONFIRMED high b"]);
    // Mounted before the session began.
    world().uses_mount("N1", "a", 1, "m1", |mount| mount.session_id.clear()).shots("a", 1, "m1", "").check(1, NONE);
    // Its mounting has not arrived: awaited, then it can be neither shown nor excluded.
    world().shots("a", 1, "m1", "").check(1, &["INDETERMINATE medium a"]);
    world().shots("a", 1, "m1", "").at(T0 + HOUR + HOUR / 2 + 1).check(1, &["PENDING high a"]);
}

#[test]
fn rule_2_a_single_use_item_serves_one_session() {
    let world = World::new;
    let reused = world().uses("N1", "a", 1, |_| ()).uses("N1", "b", 5, |_| ());
    reused.check(2, &["CONFIRMED critical a+b"]);
    let on_another_device = world().uses("N1", "a", 1, |_| ()).uses("N1", "b", 5, |mount| mount.device = text("pen-2"));
    on_another_device.check(2, &["CONFIRMED critical a+b"]);
    // The same mount, left where it was.
    let left = world().uses_mount("N1", "a", 1, "m1", |_| ()).uses_mount("N1", "b", 5, "m1", |_| ());
    left.check(2, &["CONFIRMED critical a+b"]);
    let left = world().uses_mount("L", "a", 1, "m1", |mount| mount.id_kind = IdKind::LotOnly);
    left.uses_mount("L", "b", 5, "m1", |mount| mount.id_kind = IdKind::LotOnly).check(2, &["CONFIRMED critical a+b"]);
    // Near misses: twice in one session, a lot that is no item, another product's serial, a
    // reusable one.
    world().uses_mount("N1", "a", 1, "m1", |_| ()).uses_mount("N1", "a", 2, "m2", |_| ()).check(2, NONE);
    let lot = |mount: &mut Mount| mount.id_kind = IdKind::LotOnly;
    world().uses("L", "a", 1, lot).uses("L", "b", 5, lot).check(2, NONE);
    world().uses("N1", "a", 1, |_| ()).uses("N1", "b", 5, |mount| mount.udi_di = text("di-7")).check(2, NONE);
    world().handpiece("H1", "a", 1).handpiece("H1", "b", 5).check(2, NONE);
    // One product in two spellings is one item.
    let spelt = |udi_di: &'static str| move |mount: &mut Mount| mount.udi_di = text(udi_di);
    for other in ["4012345000017", "(01)04012345000017(21)N1", " 04012345000017"] {
        let world = world().uses("N1", "a", 1, spelt("04012345000017")).uses("N1", "b", 5, spelt(other));
        world.check(2, &["CONFIRMED critical a+b"]);
    }
    // One item whose label was scanned, and typed without its product, which the string names.
    let scanned = |item: &str| world().uses("(01)04012345000017(21)N1", "a", 1, |_| ()).uses(item, "b", 5, spelt(""));
    scanned("]d2010401234500001710L1\u{1d}21N1").check(2, &["CONFIRMED critical a+b"]);
    scanned("(01)4012345000017(21)N1").check(2, &["CONFIRMED critical a+b"]);
    for other in ["N1", "(01)04012345000017(21)N2", "(01)04012345000024(21)N1", "(01)0401234500001x(21)N1"] {
        scanned(other).check(2, NONE);
    }
}

#[test]
fn rule_2_awaits_what_the_id_means() {
    // The second mounting has not arrived, so nobody knows that its id is a serial number.
    let mut world = World::new().uses("N1", "a", 1, |_| ()).uses("N1", "b", 5, |_| ());
    let late = world.facts.remove(2);
    world.check(2, &["INDETERMINATE high a+b"]);
    world.fact(late).check(2, &["CONFIRMED critical a+b"]);
}

#[test]
fn rule_3_a_single_use_item_does_not_belong_into_a_cycle() {
    let world = World::new;
    world().uses("N1", "a", 1, |_| ()).cycle("c1", 3, PASSED, &["N1"]).check(3, &["CONFIRMED high "]);
    world().cycle("c1", 0, PASSED, &["N1"]).uses("N1", "a", 1, |_| ()).check(3, &["CONFIRMED high a"]);
    world().handpiece("H1", "a", 1).cycle("c1", 3, PASSED, &["H1"]).check(3, NONE);
    let lot = |mount: &mut Mount| mount.id_kind = IdKind::LotOnly;
    world().uses("L1", "a", 1, lot).cycle("c1", 3, PASSED, &["L1"]).check(3, NONE);
}

#[test]
fn rule_4_a_reusable_item_needs_a_released_passed_cycle_since_its_previous_session() {
    let used_twice = || {
        World::new().cycle("c0", 0, PASSED, &["H1"]).released("c0", 0).handpiece("H1", "a", 1).handpiece("H1", "b", 20)
    };
    used_twice().check(4, &["CONFIRMED critical b"]);
    used_twice().cycle("c1", 10, PASSED, &["H1"]).released("c1", 11).check(4, NONE);
    used_twice().cycle("c1", 10, PASSED, &["H2"]).released("c1", 11).check(4, &["CONFIRMED critical b"]);
    used_twice().cycle("c1", 0, PASSED, &["H1"]).released("c1", 11).check(4, &["CONFIRMED critical b"]);
    used_twice().cycle("c1", 30, PASSED, &["H1"]).released("c1", 31).check(4, &["CONFIRMED critical b"]);
    used_twice().cycle("c1", 10, Outcome::Failed, &["H1"]).released("c1", 11).check(4, &["CONFIRMED critical b"]);
    used_twice()
        .cycle("c1", 10, Outcome::Indeterminate, &["H1"])
        .released("c1", 11)
        .check(4, &["INDETERMINATE high b"]);
    used_twice()
        .cycle("c1", 10, PASSED, &["H1"])
        .decided("c1", 11, Decision::Rejected)
        .check(4, &["CONFIRMED critical b"]);
    let wet = |cycle: &mut Cycle| cycle.load_dry = Some(false);
    used_twice().cycle_with("c1", 10, PASSED, &["H1"], wet).released("c1", 11).check(4, &["CONFIRMED critical b"]);
    // A test of the sterilizer sterilizes nothing.
    let test = |cycle: &mut Cycle| cycle.purpose = Purpose::BowieDick;
    used_twice().cycle_with("c1", 10, PASSED, &["H1"], test).released("c1", 11).check(4, &["CONFIRMED critical b"]);
    // Nothing at all is known of the first use.
    World::new().handpiece("H1", "a", 1).check(4, &["INDETERMINATE high a"]);
    // Just used: its sterilizer's data may be on their way.
    World::new().handpiece("H1", "a", 1).at(T0 + HOUR + HOUR / 10 + 1).check(4, &["PENDING critical a"]);
}

#[test]
fn rule_4_awaits_the_release_and_then_decides() {
    let used = || {
        World::new()
            .cycle("c0", 0, PASSED, &["H1"])
            .released("c0", 0)
            .handpiece("H1", "a", 1)
            .cycle("c1", 10, PASSED, &["H1"])
            .handpiece("H1", "b", 20)
    };
    let soon = T0 + 30 * HOUR;
    used().at(soon).check(4, &["PENDING critical b"]);
    used().released("c1", 40).at(T0 + 41 * HOUR).check(4, NONE);
    used().decided("c1", 40, Decision::Rejected).at(T0 + 41 * HOUR).check(4, &["CONFIRMED critical b"]);
    used().at(T0 + 69 * HOUR).check(4, &["CONFIRMED critical b"]);
    used().policy("sterility.release_hours", "72").at(T0 + 69 * HOUR).check(4, &["PENDING critical b"]);
    let verdicts = used().at(soon).verdicts();
    let pending: Vec<_> = verdicts.iter().filter(|verdict| verdict.state == VerdictState::Pending).collect();
    assert_eq!(pending[0].decide_at, T0 + 20 * HOUR + HOUR / 10 + 48 * HOUR);
    assert_eq!(condition(&pending), None, "what is awaited raises no alert");
}

#[test]
fn rule_4_is_indeterminate_where_a_clock_is_not_synchronised() {
    let world = |synced_use: bool, synced_cycle: bool| {
        World::new()
            .handpiece("H1", "a", 1)
            .cycle_with("c1", 10, PASSED, &["H1"], |cycle| cycle.synced = synced_cycle)
            .released("c1", 11)
            .uses("H1", "b", 20, |mount| (reusable(mount), mount.synced = synced_use).0)
    };
    assert_eq!(world(true, true).rule(4), ["INDETERMINATE high a"], "only the first use, of which nothing is known");
    assert_eq!(world(false, true).rule(4), ["INDETERMINATE high a", "INDETERMINATE high b"]);
    assert_eq!(world(true, false).rule(4), ["INDETERMINATE high a", "INDETERMINATE high b"]);
    // Without any cycle no order of things makes it sterile.
    let never =
        World::new().handpiece("H1", "a", 1).uses("H1", "b", 20, |mount| (reusable(mount), mount.synced = false).0);
    assert_eq!(never.rule(4), ["CONFIRMED critical b", "INDETERMINATE high a"]);
}

#[test]
fn rule_5_a_failed_cycle_is_worse_the_further_its_load_got() {
    let world = |outcome| World::new().policy("sterility.bowie_dick", "off").cycle("c1", 1, outcome, &["H1"]);
    world(Outcome::Failed).decided("c1", 2, Decision::Rejected).check(5, &["CONFIRMED medium "]);
    world(Outcome::Failed).released("c1", 2).check(5, &["CONFIRMED high "]);
    world(Outcome::Failed)
        .released("c1", 2)
        .handpiece("H1", "a", 3)
        .check(5, &["CONFIRMED critical a", "CONFIRMED high "]);
    world(Outcome::Indeterminate)
        .released("c1", 2)
        .handpiece("H1", "a", 3)
        .check(5, &["INDETERMINATE high a", "INDETERMINATE medium "]);
    world(PASSED).released("c1", 2).handpiece("H1", "a", 3).check(5, NONE);
    world(Outcome::Pending).check(5, NONE);
    world(PASSED)
        .indicator("c1", 2, IndicatorKind::Chemical, IndicatorResult::Positive)
        .check(5, &["CONFIRMED medium "]);
    // Used before the cycle, not after.
    world(Outcome::Failed).handpiece("H1", "a", 0).check(5, &["CONFIRMED medium "]);
    let verdicts = world(Outcome::Failed).released("c1", 2).handpiece("H1", "a", 3).verdicts();
    let of_cycle: Vec<_> = verdicts.iter().filter(|verdict| verdict.rule == 5).collect();
    let alert = condition(&of_cycle).unwrap();
    assert_eq!((alert.severity.as_str(), alert.sessions, alert.items), ("critical", vec![text("a")], vec![text("H1")]));
}

#[test]
fn rule_6_expired_breached_and_wet() {
    let world = World::new;
    world().uses("N1", "a", 1, |mount| mount.expiry = text("2026-01-04")).check(6, &["CONFIRMED high a"]);
    world().uses("N1", "a", 1, |mount| mount.expiry = text("2026-01-05")).check(6, NONE);
    world().uses("N1", "a", 1, |mount| mount.expiry = text("2026-01-00")).check(6, NONE);
    world().uses("N1", "a", 1, |mount| mount.pack_intact = Some(false)).check(6, &["CONFIRMED critical a"]);
    world().uses("N1", "a", 1, |mount| mount.pack_intact = None).check(6, NONE);
    // Opened, but never used.
    let mut opened = world().uses("N1", "a", 1, |mount| mount.pack_intact = Some(false));
    opened.facts.retain(|fact| !matches!(fact, Fact::Use(_)));
    opened.check(6, NONE);
    let load = |dry| world().cycle_with("c1", 1, PASSED, &["H1"], |cycle| cycle.load_dry = dry).released("c1", 2);
    load(Some(false)).handpiece("H1", "a", 3).check(6, &["CONFIRMED critical a"]);
    load(None).handpiece("H1", "a", 3).check(6, NONE);
    load(Some(false)).handpiece("H1", "a", 0).check(6, NONE);
    // Mixtures.
    world().shots("a", 1, "", "p1").component("p1", "P1", "2027-01-00", 1).check(6, &["CONFIRMED high a"]);
    world().shots("a", 1, "", "p1").component("p1", "P1", "2027-01-00", 2).check(6, NONE);
    world().shots("a", 1, "", "p1").component("p1", "P1", "2025-12-00", 2).check(6, &["CONFIRMED high a"]);
}

/// T0 is midnight of 2026-01-05. Without a device's time the use may have been 400 days before its
/// receipt, and never after it.
#[test]
fn rules_6_and_12_are_as_sure_as_the_time_of_the_use() {
    let needle = |expiry: &str| World::new().uses("N1", "a", 10, |mount| mount.expiry = text(expiry));
    // A clock that shows 1970, and a needle that expired in 2020: whenever it was, it was after
    // that.
    needle("2020-06-30").undated().check(6, &["CONFIRMED high a"]);
    needle("2025-11-30").undated().check(6, &["INDETERMINATE medium a"]);
    // A clock that is ten years ahead, and a needle that is good: the time of receipt is the latest
    // that it can be.
    needle("2027-01-00").undated().check(6, NONE);
    // A clock that is a day ahead, on the needle's last day.
    needle("2026-01-05").undated().check(6, NONE);
    // The same, told the day after: another message of that boot has shown what the clock is worth.
    let told_late = |is_doubted: bool| {
        World::new().uses("N1", "a", 34, |mount| (mount.expiry = text("2026-01-05"), mount.synced = !is_doubted).0)
    };
    told_late(false).check(6, &["CONFIRMED high a"]);
    told_late(true).check(6, &["INDETERMINATE medium a"]);
    // A clock that is right may still be ahead by five minutes.
    needle("2026-01-05").ended(T0 + DAY + HOUR / 12 - 1).check(6, &["INDETERMINATE medium a"]);
    needle("2026-01-05").ended(T0 + DAY + HOUR / 12).check(6, &["CONFIRMED high a"]);
    needle("2026-01-05").ended(T0 + DAY - 1).check(6, NONE);
    // The mount was told in time, the injections were not.
    let mut half = needle("2025-11-30").undated();
    for fact in &mut half.facts {
        if let Fact::Mount(mount) = fact {
            mount.synced = true;
        }
    }
    half.check(6, &["INDETERMINATE medium a"]);
    // By the registry, and of a mixture.
    let lot = |expiry: i64| {
        let mut world = World::new().uses("N1", "a", 10, |_| ()).undated();
        world.registry.lots.push(LotExpiry { udi_di: text("di-1"), lot: text("L1"), expiry: expiry as i32 });
        world
    };
    let today = T0 / DAY;
    lot(today).check(12, NONE);
    lot(today - 1).check(12, &["INDETERMINATE medium a"]);
    lot(today - 401).check(12, &["CONFIRMED high a"]);
    let mixture =
        |expiry, use_by_hour| World::new().shots("a", 1, "", "p1").component("p1", "P1", expiry, use_by_hour).undated();
    mixture("2027-01-00", 1).check(6, &["INDETERMINATE medium a"]);
    mixture("2020-01-00", 1).check(6, &["CONFIRMED high a"]);
    mixture("2027-01-00", -401 * 24).check(6, &["CONFIRMED high a"]);
    mixture("2027-01-00", 2).check(6, NONE);
}

#[test]
fn rule_4_is_not_decided_by_the_order_of_receipts() {
    let world = || {
        World::new()
            .handpiece("H1", "a", 1)
            .cycle("c1", 10, PASSED, &["H1"])
            .released("c1", 12)
            .handpiece("H1", "b", 20)
    };
    world().check(4, &["INDETERMINATE high a"]);
    let mut undated = world();
    for fact in &mut undated.facts {
        if let Fact::Use(used) = fact {
            used.undated = 1;
        }
    }
    undated.check(4, &["INDETERMINATE high a", "INDETERMINATE high b"]);
}

#[test]
fn rule_7_reprocessed_more_often_than_allowed() {
    let world = |times: i64| {
        let world = World::new().policy("sterility.reprocessings_max", "2").handpiece("H1", "a", 0);
        (1..=times).fold(world, |world, at| world.cycle(&format!("c{at}"), at, PASSED, &["H1"]))
    };
    world(2).check(7, NONE);
    world(3).check(7, &["CONFIRMED high "]);
    world(3).handpiece("H1", "b", 9).check(7, &["CONFIRMED high b"]);
    let washed = (1..=3).fold(World::new().policy("sterility.reprocessings_max", "2"), |world, at| {
        world.rinsed("H1", at, RinseWater::Sterile)
    });
    washed.check(7, &["CONFIRMED high "]);
    let mut unlimited = world(3);
    unlimited.registry = Registry::default();
    unlimited.check(7, NONE);
}

#[test]
fn rule_8_required_tests() {
    let load = || World::new().cycle("c1", 5, PASSED, &[]);
    let test = |purpose: Purpose| move |cycle: &mut Cycle| cycle.purpose = purpose;
    load().check(8, &["CONFIRMED medium "]);
    let tested = || load().cycle_with("bd", 1, PASSED, &[], test(Purpose::BowieDick));
    tested().indicator("bd", 2, IndicatorKind::BowieDick, IndicatorResult::Negative).check(8, NONE);
    tested().indicator("bd", 2, IndicatorKind::BowieDick, IndicatorResult::Positive).check(8, &["CONFIRMED high "]);
    tested().check(8, &["CONFIRMED medium "]);
    tested().at(T0 + 6 * HOUR).check(8, &["PENDING medium "]);
    // After the load, or the day before, it does not count.
    load()
        .cycle_with("bd", 6, PASSED, &[], test(Purpose::BowieDick))
        .indicator("bd", 7, IndicatorKind::BowieDick, IndicatorResult::Negative)
        .check(8, &["CONFIRMED medium "]);
    load()
        .cycle_with("bd", -20, PASSED, &[], test(Purpose::BowieDick))
        .indicator("bd", -19, IndicatorKind::BowieDick, IndicatorResult::Negative)
        .check(8, &["CONFIRMED medium "]);
    load().policy("sterility.bowie_dick", "off").check(8, NONE);
    World::new().cycle_with("c1", 5, PASSED, &[], |cycle| cycle.recipe = text("121C-15min")).check(8, NONE);
    // Biological, weekly.
    let weeks = |bi_day: i64| {
        let world = World::new().policy("sterility.bowie_dick", "off").cycle("c0", 0, PASSED, &[]);
        world
            .cycle("bi", bi_day * 24, PASSED, &[])
            .indicator("bi", bi_day * 24 + 48, IndicatorKind::Biological, IndicatorResult::Negative)
            .cycle("c9", 9 * 24, PASSED, &[])
    };
    weeks(3).check(8, NONE);
    weeks(1).check(8, &["CONFIRMED medium "]);
    weeks(1).policy("sterility.biological_days", "0").check(8, NONE);
}

#[test]
fn rule_9_a_positive_indicator_recalls_back_to_the_last_negative_one() {
    let world = |result: IndicatorResult| {
        let world = World::new().policy("sterility.bowie_dick", "off").policy("sterility.biological_days", "0");
        let world = (1..=5).fold(world, |world, number| {
            let uid = format!("c{number}");
            world.cycle(&uid, 10 * number, PASSED, &[&format!("H{number}")]).released(&uid, 10 * number + 1)
        });
        let world = (1..=5).fold(world, |world, number| {
            world.handpiece(&format!("H{number}"), &format!("s{number}"), 10 * number + 5)
        });
        world.indicator("c2", 60, IndicatorKind::Biological, IndicatorResult::Negative).indicator(
            "c4",
            99,
            IndicatorKind::Biological,
            result,
        )
    };
    world(IndicatorResult::Negative).check(9, NONE);
    world(IndicatorResult::Invalid).check(9, NONE);
    let recalled = ["CONFIRMED critical ", "CONFIRMED critical s3", "CONFIRMED critical s4", "CONFIRMED critical s5"];
    world(IndicatorResult::Positive).check(9, &recalled);
    // A negative one afterwards clears what came after it.
    world(IndicatorResult::Positive)
        .indicator("c5", 120, IndicatorKind::Biological, IndicatorResult::Negative)
        .check(9, &recalled[..3]);
    // One in between that comes late narrows it.
    world(IndicatorResult::Positive)
        .indicator("c3", 130, IndicatorKind::Biological, IndicatorResult::Negative)
        .check(9, &[recalled[0], recalled[2], recalled[3]]);
    let verdicts = world(IndicatorResult::Positive).verdicts();
    let of_recall: Vec<_> = verdicts.iter().filter(|verdict| verdict.rule == 9).collect();
    let alert = condition(&of_recall).unwrap();
    assert_eq!(alert.alert_key, "sterility-9/acme/c4");
    assert_eq!(
        (alert.sessions, alert.cycles),
        (vec![text("s3"), text("s4"), text("s5")], vec![text("c3"), text("c4"), text("c5")])
    );
    // Items of recalled cycles are not sterile either.
    world(IndicatorResult::Positive)
        .check(4, &["CONFIRMED critical s3", "CONFIRMED critical s4", "CONFIRMED critical s5"]);
}

#[test]
fn rule_10_tap_water() {
    let world = || World::new().cycle("c0", 0, PASSED, &["H1"]).released("c0", 0).handpiece("H1", "a", 1);
    world().rinsed("H1", 5, RinseWater::Tap).check(10, &["CONFIRMED high "]);
    world().rinsed("H1", 5, RinseWater::Tap).handpiece("H1", "b", 9).check(10, &["CONFIRMED critical b"]);
    let sterilized = world().rinsed("H1", 5, RinseWater::Tap).cycle("c1", 6, PASSED, &["H1"]).released("c1", 7);
    sterilized.handpiece("H1", "b", 9).check(10, &["CONFIRMED high b"]);
    world().rinsed("H1", 5, RinseWater::Demineralised).handpiece("H1", "b", 9).check(10, NONE);
}

#[test]
fn rule_11_punctures() {
    let world = |limit: &str| World::new().policy("sterility.punctures_max", limit).uses("N1", "a", 1, |_| ());
    world("19").check(11, &["CONFIRMED low a"]);
    world("20").check(11, NONE);
    World::new().policy("sterility.punctures_max", "1").handpiece("H1", "a", 1).check(11, NONE);
    World::new().uses("N1", "a", 1, |_| ()).check(11, NONE);
}

#[test]
fn rule_12_recalled_or_expired_lots() {
    let world = || World::new().uses("N1", "a", 1, |_| ()).uses("N2", "b", 5, |_| ());
    world().recall("di-1", "L1").check(12, &["CONFIRMED high a", "CONFIRMED high b"]);
    world().recall("di-1", "").check(12, &["CONFIRMED high a", "CONFIRMED high b"]);
    world().recall("di-1", "L2").check(12, NONE);
    world().recall("di-7", "L1").check(12, NONE);
    World::new()
        .uses("N1", "a", 1, |mount| mount.udi_di.clear())
        .recall("di-7", "L1")
        .check(12, &["INDETERMINATE medium a"]);
    // GTIN-13 and GTIN-14, a full element string, blanks around a lot; capital and small letters
    // differ (GS1, AI 10).
    let label = |udi_di: &'static str, lot: &'static str| {
        World::new().uses("N1", "a", 1, move |mount| (mount.udi_di, mount.lot) = (text(udi_di), text(lot)))
    };
    label("4012345000017", "L1").recall("04012345000017", "L1").check(12, &["CONFIRMED high a"]);
    label("04012345000017", "L1 ").recall("4012345000017", " L1").check(12, &["CONFIRMED high a"]);
    label("(01)04012345000017(10)L1", "").recall("4012345000017", "L1").check(12, &["CONFIRMED high a"]);
    label("04012345000017", "L1").recall("(01)04012345000017(10)L1", "L1").check(12, &["CONFIRMED high a"]);
    label("4012345000017", "l1").recall("04012345000017", "L1").check(12, NONE);
    label("4012345000024", "L1").recall("04012345000017", "L1").check(12, NONE);
    let scanned = World::new().uses("(01)04012345000017(10)L1(21)N1", "a", 1, |mount| {
        (mount.udi_di, mount.lot) = (String::new(), String::new());
    });
    scanned.recall("4012345000017", "L1").check(12, &["CONFIRMED high a"]);
    let expires = |day: i64| {
        let mut world = world();
        let expiry = (T0 / DAY + day) as i32;
        world.registry.lots.push(LotExpiry { udi_di: text("di-1"), lot: text("L1"), expiry });
        world
    };
    expires(0).check(12, NONE);
    expires(-1).check(12, &["CONFIRMED high a", "CONFIRMED high b"]);
    let mixed = World::new().shots("c", 1, "", "p1").component("p1", "P1", "", 9).recall("di-9", "P1");
    mixed.check(12, &["CONFIRMED high c"]);
    let verdicts = world().recall("di-1", "L1").verdicts();
    let of_rule: Vec<_> = verdicts.iter().filter(|verdict| verdict.rule == 12).collect();
    assert_eq!(condition(&of_rule).unwrap().sessions, ["a", "b"], "one alert for the lot");
}

/// A few items, cycles and sessions with everything that can be said about them.
fn worlds() -> impl Strategy<Value = World> {
    let fact = (0..9u8, 0..4i64, 0..4i64, 0..60i64, 0..3u8);
    (proptest::collection::vec(fact, 1..40), 0..200i64).prop_map(|(facts, now)| {
        let world = World::new().policy("sterility.reprocessings_max", "2").policy("sterility.punctures_max", "30");
        let world = world.recall("di-1", "L1").at(T0 + now * HOUR);
        facts.into_iter().fold(world, |world, (kind, item, other, hour, choice)| {
            let (needle, handpiece) = (format!("N{item}"), format!("H{item}"));
            let (session, uid) = (format!("s{other}"), format!("c{other}"));
            // One cycle has one curve, however often it is told.
            let outcome = [PASSED, PASSED, Outcome::Failed, Outcome::Indeterminate][other as usize];
            let result =
                [IndicatorResult::Negative, IndicatorResult::Positive, IndicatorResult::Invalid][usize::from(choice)];
            match kind {
                0 => world.uses(&needle, &session, hour, |mount| mount.synced = choice > 0),
                1 | 2 => world.uses(&handpiece, &session, hour, |mount| (reusable(mount), mount.synced = choice > 0).0),
                3 | 4 => world.cycle(&uid, hour, outcome, &[&handpiece]),
                5 => world.decided(
                    &uid,
                    hour,
                    [Decision::Released, Decision::Released, Decision::Rejected][usize::from(choice)],
                ),
                6 => world.indicator(
                    &uid,
                    hour,
                    [IndicatorKind::Biological, IndicatorKind::Chemical][usize::from(choice) % 2],
                    result,
                ),
                7 => world.rinsed(
                    &handpiece,
                    hour,
                    [RinseWater::Sterile, RinseWater::Tap, RinseWater::Demineralised][usize::from(choice)],
                ),
                _ => world.shots(&session, hour, &format!("m-{session}-{needle}"), "p1").component(
                    "p1",
                    "L1",
                    "2026-01-00",
                    hour,
                ),
            }
        })
    })
}

proptest! {
    /// Whatever the order in which facts arrived, the verdicts are the same.
    #[test]
    fn the_order_of_facts_does_not_matter(world in worlds(), seed in any::<u64>()) {
        let mut shuffled = world.clone();
        let mut state = seed | 1;
        for at in (1..shuffled.facts.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            shuffled.facts.swap(at, (state >> 33) as usize % (at + 1));
        }
        prop_assert_eq!(world.verdicts(), shuffled.verdicts());
    }

    /// No key stands twice, and each alert key belongs to one rule.
    #[test]
    fn keys_are_unique(world in worlds()) {
        let verdicts = world.verdicts();
        let mut names: Vec<_> = verdicts.iter().map(|verdict| (&verdict.unit, &verdict.verdict_key)).collect();
        names.dedup();
        prop_assert_eq!(names.len(), verdicts.len());
        for verdict in &verdicts {
            let rule = format!("sterility-{}/", verdict.rule);
            prop_assert!(verdict.rule == 0 || verdict.alert_key.starts_with(&rule), "{:?}", verdict);
        }
    }
}
