//! The cluster as a whole, and its members.

use super::facts;
use crate::output::{Column, Format, Listing, Row, Tone, column};
use crate::text;
use serde_json::{Value, json};
use yard_proto::v1;

/// The cluster: one row, whose text lists the members.
pub(crate) fn cluster(status: &v1::StatusResponse) -> (Row, String) {
    let id: String = status.cluster_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let leader = match &status.leader {
        Some(leader) => format!("member {} (term {})", leader.member_id, leader.term),
        None => "none: an election is under way, or a majority is away".into(),
    };
    let counts = status.counts.unwrap_or_default();
    let mut out = facts(&[
        ("cluster", id.clone()),
        ("leader", leader),
        ("log", format!("{} applied, {} committed", status.applied_index, status.committed_index)),
        ("nodes", format!("{} up of {}", counts.nodes_up, counts.nodes)),
        ("gpus", format!("{} free of {}", counts.gpus_free, counts.gpus)),
        ("jobs", format!("{} live of {} known", counts.jobs_live, counts.jobs)),
        ("version", format!("{}, feature level {}", status.version, status.feature_level)),
        ("life", life(status.incarnation)),
    ]);
    out.push('\n');
    let now = status.now.as_ref().map_or(0, |now| now.wall_ms);
    let members = members(&status.members, now);
    out.push_str(&members.render(Format::Table));
    for alarm in &status.alarms {
        let (code, member, message) = (&alarm.code, alarm.member_id, &alarm.message);
        out.push_str(&format!("alarm[{code}]: member {member}: {message}\n"));
    }
    let alarms = status.alarms.iter().map(|alarm| {
        let (code, message) = (&alarm.code, &alarm.message);
        json!({ "member": alarm.member_id, "code": code, "message": message })
    });
    let alarms: Vec<Value> = alarms.collect();
    for note in notes(status) {
        out.push_str(&format!("note: {note}\n"));
    }
    let values: Vec<Value> = members.rows.into_iter().map(|row| row.value).collect();
    let value = json!({
        "cluster_id": id,
        "incarnation": status.incarnation,
        "leader": status.leader.as_ref().map(|leader| leader.member_id),
        "term": status.leader.as_ref().map(|leader| leader.term),
        "members": values,
        "applied_index": status.applied_index,
        "committed_index": status.committed_index,
        "feature_level": status.feature_level,
        "version": status.version,
        "nodes": counts.nodes,
        "nodes_up": counts.nodes_up,
        "jobs": counts.jobs,
        "jobs_live": counts.jobs_live,
        "gpus": counts.gpus,
        "gpus_free": counts.gpus_free,
        "alarms": alarms,
    });
    (Row { cells: Vec::new(), value, name: id, tones: Vec::new() }, out)
}

/// Which life of the cluster this is, if it is not the first: the second of its restore.
fn life(incarnation: u32) -> String {
    match incarnation {
        0 | 1 => String::new(),
        second => format!("{second}, restored {}", text::moment(u64::from(second) * 1_000)),
    }
}

fn columns() -> Vec<Column> {
    vec![
        column("MEMBER").right(),
        column("ROLE"),
        column("ADDRESS"),
        column("BEHIND").right(),
        column("FLUSH P99").right(),
        column("CERTIFICATE").right(),
        column("VERSION"),
        column("LEVELS"),
    ]
}

/// The members, as of a time.
pub(crate) fn members(members: &[v1::Member], now_wall_ms: u64) -> Listing {
    let rows = members.iter().map(|member| row(member, now_wall_ms));
    Listing { kind: "Member", columns: columns(), rows: rows.collect() }
}

fn row(member: &v1::Member, now_wall_ms: u64) -> Row {
    let known = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let left = |ends: u64| text::duration(ends.saturating_sub(now_wall_ms));
    let away = !member.unreachable.is_empty();
    let role = match (member.leaves, away) {
        (true, _) => "leaving".into(),
        (false, true) => format!("{} (away)", text::member_role(member.role)),
        (false, false) => text::member_role(member.role),
    };
    Row {
        cells: vec![
            member.id.to_string(),
            role,
            member.address.clone(),
            known(member.lag_entries.map(|lag| lag.to_string())),
            known(member.flush_p99_us.map(millis)),
            known(member.certificate_expires_wall_ms.map(left)),
            member.version.clone(),
            known(member.feature_level_max.map(levels)),
        ],
        value: json!({
            "id": member.id,
            "role": text::member_role(member.role),
            "address": member.address,
            "reachable": !away,
            "leaves": member.leaves,
            "matched_index": member.matched_index,
            "applied_index": member.applied_index,
            "lag_entries": member.lag_entries,
            "flush_p99_us": member.flush_p99_us,
            "certificate_expires_wall_ms": member.certificate_expires_wall_ms,
            "version": member.version,
            "feature_level_max": member.feature_level_max,
        }),
        name: member.id.to_string(),
        tones: vec![(1, if away || member.leaves { Tone::Bad } else { Tone::Plain })],
    }
}

/// Microseconds, as milliseconds for people.
fn millis(us: u64) -> String {
    match us {
        0..10_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{} ms", us / 1_000),
    }
}

/// The feature levels that a program understands, of which this is the highest.
fn levels(max: u32) -> String {
    if max == 0 { "0".into() } else { format!("0-{max}") }
}

/// Whether the feature level can be raised, and who is in the way if only some understand more.
fn level_note(status: &v1::StatusResponse) -> Option<String> {
    let members = || status.members.iter().filter(|member| !member.leaves);
    let next = status.feature_level + 1;
    let knows = |member: &v1::Member| member.feature_level_max.is_some_and(|max| max >= next);
    // Who was not asked, or does not answer, says nothing.
    let told = || members().filter(|member| member.unreachable.is_empty());
    let old: Vec<&v1::Member> = told().filter(|member| !knows(member)).collect();
    if old.len() == told().count() || old.is_empty() && told().count() < members().count() {
        return None;
    }
    if old.is_empty() {
        return Some(format!(
            "every coordinator understands feature level {next}: `yard cluster raise-level` lets \
             the cluster use it; there is no way back after that"
        ));
    }
    let ids: Vec<String> = old.iter().map(|member| member.id.to_string()).collect();
    let list = ids.join(", ");
    Some(format!(
        "the feature level stays at {} until these members understand {next}, too: {list}",
        status.feature_level
    ))
}

/// What an operator should know, and cannot read off a row.
fn notes(status: &v1::StatusResponse) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(level_note(status));
    for member in &status.members {
        if !member.unreachable.is_empty() {
            notes.push(format!("member {} does not answer: {}", member.id, member.unreachable));
        }
    }
    let votes = |member: &&v1::Member| {
        matches!(member.role(), v1::MemberRole::Leader | v1::MemberRole::Follower)
    };
    let voters = status.members.iter().filter(votes).count();
    let learners = status.members.len() - voters;
    if voters > 0 && voters.is_multiple_of(2) {
        let fewer = (voters - 1) / 2;
        notes.push(format!(
            "{voters} voters survive the loss of {fewer}, as {} would; an odd number is better",
            voters - 1
        ));
    } else if learners > 0 {
        notes.push(
            "a learner votes once it has caught up and the number of voters stays odd; `yard \
             cluster add` does not wait for that"
                .into(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_without_a_leader_says_so() {
        let member = v1::Member {
            id: 1,
            address: "10.0.0.1:7100".into(),
            role: v1::MemberRole::Follower.into(),
            ..v1::Member::default()
        };
        let status = v1::StatusResponse {
            cluster_id: vec![0xab; 16].into(),
            members: vec![member],
            ..v1::StatusResponse::default()
        };
        let (row, text) = cluster(&status);
        assert!(text.contains("leader   none: an election is under way"), "{text}");
        assert!(text.contains("Follower  10.0.0.1:7100"), "{text}");
        assert!(!text.contains("LOG"), "nobody tells how far the log of a member is: {text}");
        assert_eq!(row.value["leader"], Value::Null);
        assert_eq!(row.name, "ab".repeat(16));
    }

    #[test]
    fn members_show_how_they_are() {
        let well = v1::Member {
            id: 1,
            address: "a:7100".into(),
            role: v1::MemberRole::Leader.into(),
            matched_index: Some(70),
            lag_entries: Some(0),
            flush_p99_us: Some(2_345),
            certificate_expires_wall_ms: Some(86_400_000),
            version: "0.1.0".into(),
            feature_level_max: Some(0),
            ..v1::Member::default()
        };
        let away = v1::Member {
            id: 2,
            address: "b:7100".into(),
            role: v1::MemberRole::Follower.into(),
            unreachable: "refused".into(),
            lag_entries: Some(12),
            flush_p99_us: None,
            ..v1::Member::default()
        };
        let listing = members(&[well.clone(), away.clone()], 0);
        let text = listing.render(Format::Csv);
        assert_eq!(text.lines().nth(1), Some("1,Leader,a:7100,0,2.3 ms,1d,0.1.0,0"));
        assert_eq!(text.lines().nth(2), Some("2,Follower (away),b:7100,12,-,-,,-"));
        let status = v1::StatusResponse { members: vec![well, away], ..Default::default() };
        let (row, text) = cluster(&status);
        assert_eq!(row.value["members"][1]["reachable"], false);
        assert!(text.contains("note: member 2 does not answer: refused"), "{text}");
        assert!(text.contains("2 voters survive the loss of 0, as 1 would"), "{text}");
    }

    #[test]
    fn the_level_can_be_raised_once_all_understand_more() {
        let note = |levels: &[Option<u32>]| {
            let member = |(id, max): (u64, &Option<u32>)| v1::Member {
                id,
                feature_level_max: *max,
                ..v1::Member::default()
            };
            let members = (1..).zip(levels).map(member).collect();
            level_note(&v1::StatusResponse { members, ..Default::default() })
        };
        assert_eq!(note(&[Some(0), Some(0), None]), None);
        let mixed = note(&[Some(1), Some(0), None]).unwrap();
        assert!(mixed.ends_with("until these members understand 1, too: 2, 3"), "{mixed}");
        let all = note(&[Some(1), Some(1)]).unwrap();
        assert!(all.contains("`yard cluster raise-level`"), "{all}");
    }
}
