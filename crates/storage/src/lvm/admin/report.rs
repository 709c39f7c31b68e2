//! LVM's, lsblk's and wipefs's reports in JSON (lvmreport(7), lsblk(8), wipefs(8)).

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::found::{Group, Logical, Physical, Piece};

/// What is asked of `pvs`.
pub(super) const PHYSICALS: &str = "pv_name,pv_major,pv_minor,pv_uuid,vg_name,pv_pe_count,\
    pv_pe_alloc_count,pv_allocatable,pv_missing,pv_duplicate,pv_in_use";
/// What is asked of `vgs`.
pub(super) const GROUPS: &str =
    "vg_name,vg_uuid,vg_extent_size,vg_free_count,vg_attr,vg_lock_type,vg_tags";
/// What is asked of `lvs -a`.
pub(super) const LOGICALS: &str = "lv_name,lv_uuid,vg_name,segtype,lv_size,pool_lv,\
    lv_metadata_size,chunk_size,zero,lv_active,lv_health_status,lv_check_needed,lv_role,move_pv,\
    lv_tags";
/// What is asked of `pvs --segments`.
pub(super) const PIECES: &str = "pv_uuid,pvseg_size,lv_name";

/// `{"report":[{"pv":[…]}]}`, and the like with `vg`, `lv`, `pvseg`.
#[derive(Deserialize)]
struct Report<T> {
    report: Vec<Section<T>>,
}

#[derive(Deserialize)]
struct Section<T> {
    #[serde(alias = "pv", alias = "vg", alias = "lv", alias = "pvseg")]
    rows: Vec<T>,
}

fn rows<T: DeserializeOwned>(text: &str) -> serde_json::Result<Vec<T>> {
    // Warnings go to the standard error; a line before the report is none of it.
    let text = &text[text.find('{').unwrap_or(0)..];
    let report: Report<T> = serde_json::from_str(text)?;
    Ok(report.report.into_iter().flat_map(|section| section.rows).collect())
}

#[derive(Deserialize)]
struct PhysicalRow {
    pv_name: String,
    pv_major: String,
    pv_minor: String,
    pv_uuid: String,
    vg_name: String,
    pv_pe_count: String,
    pv_pe_alloc_count: String,
    pv_allocatable: String,
    pv_missing: String,
    pv_duplicate: String,
    pv_in_use: String,
}

/// Reads the answer to [`PHYSICALS`].
pub(super) fn physicals(text: &str) -> serde_json::Result<Vec<Physical>> {
    let read = |row: PhysicalRow| Physical {
        number: format!("{}:{}", row.pv_major, row.pv_minor),
        name: row.pv_name,
        uuid: row.pv_uuid,
        group: row.vg_name,
        extents: number(&row.pv_pe_count),
        used: number(&row.pv_pe_alloc_count),
        allocatable: !row.pv_allocatable.is_empty(),
        missing: !row.pv_missing.is_empty(),
        duplicate: !row.pv_duplicate.is_empty(),
        in_use: !row.pv_in_use.is_empty(),
    };
    Ok(rows(text)?.into_iter().map(read).collect())
}

#[derive(Deserialize)]
struct GroupRow {
    vg_name: String,
    vg_uuid: String,
    vg_extent_size: String,
    vg_free_count: String,
    /// vgs(8): permissions, resizeable, exported, partial, allocation, clustered or shared.
    vg_attr: String,
    vg_lock_type: String,
    vg_tags: String,
}

/// Reads the answer to [`GROUPS`]. A group with a system id (lvmsystemid(7)) is this machine's own:
/// that of another is not reported, but for one that is in use here, which LVM does not change.
pub(super) fn groups(text: &str) -> serde_json::Result<Vec<Group>> {
    let read = |row: GroupRow| {
        let attribute = |n: usize, letters: &str| {
            row.vg_attr.chars().nth(n).is_some_and(|letter| letters.contains(letter))
        };
        Group {
            writable: attribute(0, "w"),
            resizeable: attribute(1, "z"),
            exported: attribute(2, "x"),
            shared: attribute(5, "cs") || !matches!(row.vg_lock_type.as_str(), "" | "none"),
            name: row.vg_name,
            uuid: row.vg_uuid,
            extent: number(&row.vg_extent_size),
            free: number(&row.vg_free_count),
            tags: tags(&row.vg_tags),
        }
    };
    Ok(rows(text)?.into_iter().map(read).collect())
}

#[derive(Deserialize)]
struct LogicalRow {
    lv_name: String,
    lv_uuid: String,
    vg_name: String,
    segtype: String,
    lv_size: String,
    pool_lv: String,
    lv_metadata_size: String,
    chunk_size: String,
    zero: String,
    lv_active: String,
    lv_health_status: String,
    lv_check_needed: String,
    lv_role: String,
    move_pv: String,
    lv_tags: String,
}

/// Reads the answer to [`LOGICALS`], which has a row for each segment.
pub(super) fn logicals(text: &str) -> serde_json::Result<Vec<Logical>> {
    let read = |row: LogicalRow| Logical {
        name: bare(&row.lv_name),
        uuid: row.lv_uuid,
        group: row.vg_name,
        kind: row.segtype,
        size: number(&row.lv_size),
        pool: bare(&row.pool_lv),
        metadata: number(&row.lv_metadata_size),
        chunk: number(&row.chunk_size),
        zeroes: row.zero == "zero",
        active: !row.lv_active.is_empty(),
        health: row.lv_health_status,
        needs_check: row.lv_check_needed == "check needed",
        spare: row.lv_role.split(',').any(|role| role == "spare"),
        moves_off: row.move_pv,
        tags: tags(&row.lv_tags),
    };
    let mut logicals: Vec<Logical> = Vec::new();
    for row in rows(text)?.into_iter().map(read) {
        if logicals.iter().all(|other| other.uuid != row.uuid) {
            logicals.push(row);
        }
    }
    Ok(logicals)
}

#[derive(Deserialize)]
struct PieceRow {
    pv_uuid: String,
    pvseg_size: String,
    lv_name: String,
}

/// Reads the answer to [`PIECES`].
pub(super) fn pieces(text: &str) -> serde_json::Result<Vec<Piece>> {
    let read = |row: PieceRow| Piece {
        physical: row.pv_uuid,
        logical: bare(&row.lv_name),
        extents: number(&row.pvseg_size),
    };
    let pieces = rows(text)?.into_iter().map(read);
    Ok(pieces.filter(|piece| !piece.logical.is_empty()).collect())
}

/// A block device and what is made of it, by `lsblk --json --bytes`.
#[derive(Debug, Deserialize)]
pub(super) struct Block {
    pub(super) path: String,
    pub(super) size: u64,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) mountpoint: Option<String>,
    pub(super) ro: bool,
    #[serde(rename = "maj:min")]
    pub(super) number: String,
    #[serde(default)]
    pub(super) children: Vec<Block>,
}

#[derive(Deserialize)]
struct Blocks {
    blockdevices: Vec<Block>,
}

/// Reads the answer of `lsblk` about one device.
pub(super) fn block(text: &str) -> serde_json::Result<Option<Block>> {
    Ok(serde_json::from_str::<Blocks>(text)?.blockdevices.into_iter().next())
}

#[derive(Deserialize)]
struct Signatures {
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    #[serde(rename = "type")]
    kind: String,
}

/// Reads the answer of `wipefs --no-act --json`. A kind that is there twice (a partition table has
/// its copy) is said once.
pub(super) fn signatures(text: &str) -> serde_json::Result<Vec<String>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut kinds: Vec<String> = Vec::new();
    for signature in serde_json::from_str::<Signatures>(text)?.signatures {
        if !kinds.contains(&signature.kind) {
            kinds.push(signature.kind);
        }
    }
    Ok(kinds)
}

/// The number after the last `:` or alone on its line, as `2.03.16(2) (2022-05-18)` or `0.9.0`.
pub(super) fn version(text: &str) -> Option<[u32; 3]> {
    let line = text.lines().find(|line| line.contains("LVM version:")).unwrap_or(text);
    let word = line.rsplit(':').next()?.split_whitespace().next()?;
    let digits = |part: &str| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse::<u32>().ok()
    };
    let mut parts = word.splitn(3, '.').map(digits);
    Some([parts.next()??, parts.next()??, parts.next()??])
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

fn tags(text: &str) -> Vec<String> {
    text.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

/// LVM puts the names of hidden volumes in brackets.
fn bare(name: &str) -> String {
    name.trim_start_matches('[').trim_end_matches(']').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lvms_reports_are_read() {
        let text = r#"{"report":[{"pv":[{"pv_name":"/dev/nvme0n2", "pv_major":"259",
            "pv_minor":"1", "pv_uuid":"Ss", "vg_name":"vg", "pv_pe_count":"149",
            "pv_pe_alloc_count":"125", "pv_allocatable":"allocatable", "pv_missing":"",
            "pv_duplicate":"", "pv_in_use":"used"}]}]}"#;
        let physical = &physicals(text).unwrap()[0];
        assert_eq!((physical.number.as_str(), physical.used), ("259:1", 125));
        assert!(physical.allocatable && physical.in_use && !physical.missing);
        let text = r#"{"report":[{"vg":[{"vg_name":"vg", "vg_uuid":"7y",
            "vg_extent_size":"4194304", "vg_free_count":"141", "vg_attr":"wz--n-",
            "vg_systemid":"", "vg_lock_type":"", "vg_tags":"holdfast,a"}]}]}"#;
        let group = &groups(text).unwrap()[0];
        assert!(group.writable && group.resizeable && !group.exported && !group.shared);
        assert_eq!((group.free, group.tags.len()), (141, 2));
        let group = &groups(&text.replace("wz--n-", "rzxpns")).unwrap()[0];
        assert!(!group.writable && group.resizeable && group.exported && group.shared);
    }

    fn group(attributes: &str, system: &str, lock: &str) -> Group {
        let text = format!(
            r#"{{"report":[{{"vg":[{{"vg_name":"vg", "vg_uuid":"7y", "vg_extent_size":"4194304",
            "vg_free_count":"141", "vg_attr":"{attributes}", "vg_systemid":"{system}",
            "vg_lock_type":"{lock}", "vg_tags":""}}]}}]}}"#
        );
        groups(&text).unwrap().remove(0)
    }

    /// Where lvm.conf has a source of system ids, a pool could be made and never be changed.
    #[test]
    fn a_group_with_this_machines_own_system_id_was_taken_for_shared() {
        assert!(!group("wz--n-", "node1.example", "").shared);
        assert!(!group("wz--n-", "", "none").shared);
        assert!(group("wz--nc", "", "").shared && group("wz--ns", "", "sanlock").shared);
        assert!(group("wz--n-", "node1.example", "dlm").shared);
    }

    #[test]
    fn a_group_that_is_not_resizeable_was_taken_for_read_only() {
        let fixed = group("w---n-", "", "");
        assert!(fixed.writable && !fixed.resizeable);
        let read_only = group("rz--n-", "", "");
        assert!(!read_only.writable && read_only.resizeable);
    }

    #[test]
    fn a_volume_of_two_segments_is_one_volume() {
        let row = r#"{"lv_name":"[pool_tdata]", "lv_uuid":"fc", "vg_name":"vg",
            "segtype":"linear", "lv_size":"8388608", "pool_lv":"", "lv_metadata_size":"",
            "chunk_size":"0", "zero":"unknown", "lv_active":"active", "lv_health_status":"",
            "lv_check_needed":"unknown", "lv_role":"private,thin,pool,data", "move_pv":"",
            "lv_tags":""}"#;
        let text = format!(r#"{{"report":[{{"lv":[{row},{row}]}}]}}"#);
        let read = logicals(&text).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].name.as_str(), read[0].size), ("pool_tdata", 8 << 20));
        let text = r#"{"report":[{"pvseg":[{"pv_uuid":"a","pvseg_size":"3","lv_name":"[x]"},
            {"pv_uuid":"a","pvseg_size":"9","lv_name":""}]}]}"#;
        assert_eq!(pieces(text).unwrap().len(), 1);
    }

    #[test]
    fn devices_are_read() {
        let text = r#"{"blockdevices":[{"path":"/dev/sdb","size":629145600,"type":"disk",
            "mountpoint":null,"ro":false,"maj:min":"8:16","children":[{"path":"/dev/sdb1",
            "size":1,"type":"part","mountpoint":"/srv","ro":false,"maj:min":"8:17"}]}]}"#;
        let block = block(text).unwrap().unwrap();
        assert_eq!((block.size, block.children.len()), (629_145_600, 1));
        let text = r#"{"signatures":[{"device":"sdb","offset":"0x200","type":"gpt"},
            {"device":"sdb","offset":"0x1000","type":"gpt"},{"type":"PMBR"}]}"#;
        assert_eq!(signatures(text).unwrap(), ["gpt", "PMBR"]);
        assert!(signatures("").unwrap().is_empty());
    }

    #[test]
    fn versions_are_read() {
        let lvm = "  LVM version:     2.03.16(2) (2022-05-18)\n  Library version: 1.02.185\n";
        assert_eq!(version(lvm), Some([2, 3, 16]));
        assert_eq!(version("0.9.0\n"), Some([0, 9, 0]));
        assert_eq!(version("no idea"), None);
    }
}
