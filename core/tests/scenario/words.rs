//! Words of a script line: positional ones and `key=value`.

use std::collections::BTreeMap;
use yard_common::Bytes;
use yard_common::gpu::{GPU_PARTS, GpuCount, GpuRequest};
use yard_common::id::TaskRange;

pub(crate) struct Words<'t> {
    pub(crate) plain: Vec<&'t str>,
    pairs: BTreeMap<&'t str, &'t str>,
}

impl<'t> Words<'t> {
    pub(crate) fn new(text: &'t str) -> Words<'t> {
        let mut words = Words { plain: Vec::new(), pairs: BTreeMap::new() };
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some((key, value)) => {
                    words.pairs.insert(key, value);
                }
                None => words.plain.push(word),
            }
        }
        words
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'t str> {
        self.pairs.get(key).copied()
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.plain.contains(&word)
    }

    pub(crate) fn number(&self, key: &str, default: u64) -> u64 {
        self.get(key).map_or(default, |text| text.parse().expect(key))
    }

    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        self.get(key).map_or(Vec::new(), |text| text.split(',').map(String::from).collect())
    }

    pub(crate) fn bytes(&self, key: &str) -> Option<u64> {
        self.get(key).map(|text| text.parse::<Bytes>().expect(key).0)
    }

    pub(crate) fn duration_ms(&self, key: &str) -> Option<u64> {
        self.get(key).map(duration_ms)
    }

    /// `rack:r1,zone:z2`
    pub(crate) fn labels(&self, key: &str) -> Vec<(String, String)> {
        let pair = |text: &String| {
            let (key, value) = text.split_once(':').expect("a label is key:value");
            (key.to_string(), value.to_string())
        };
        let mut labels: Vec<_> = self.list(key).iter().map(pair).collect();
        labels.sort();
        labels
    }
}

/// `500ms`, `10s`, `5m`, `2h`
pub(crate) fn duration_ms(text: &str) -> u64 {
    let split = text.find(|c: char| !c.is_ascii_digit()).expect("a unit of time");
    let count: u64 = text[..split].parse().expect(text);
    count
        * match &text[split..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            unit => panic!("unit {unit}"),
        }
}

/// `8`, `0.5`, `h100:8`, `h100/a100:0.5`, `mig-1g.10gb:2`
pub(crate) fn gpus(text: &str) -> GpuRequest {
    let (models, count) = text.split_once(':').unwrap_or(("", text));
    if let Some(profile) = models.strip_prefix("mig-") {
        let profile = profile.parse().expect("a MIG profile");
        let count = GpuCount::Mig(profile, count.parse().expect("a count"));
        return GpuRequest { count, ..GpuRequest::NONE };
    }
    let count = match count.split_once('.') {
        Some((_, fraction)) => {
            let digits: u16 = fraction.parse().expect("a fraction");
            GpuCount::Part(digits * (GPU_PARTS / 10u16.pow(fraction.len() as u32)))
        }
        None => match count.parse().expect("a count") {
            0 => GpuCount::None,
            count => GpuCount::Whole(count),
        },
    };
    let models = models.split('/').filter(|model| !model.is_empty()).map(String::from).collect();
    GpuRequest { count, models, ..GpuRequest::NONE }
}

/// `4` or `2..8`
pub(crate) fn span(text: &str) -> (u32, u32) {
    match text.split_once("..") {
        Some((min, max)) => (min.parse().expect(text), max.parse().expect(text)),
        None => (text.parse().expect(text), text.parse().expect(text)),
    }
}

/// `0-99` or `0-99%8`
pub(crate) fn array(text: &str) -> (TaskRange, Option<u32>) {
    let (range, max) = match text.split_once('%') {
        Some((range, max)) => (range, Some(max.parse().expect(text))),
        None => (text, None),
    };
    let (first, last) = range.split_once('-').expect("a range of tasks");
    let (first, last): (u32, u32) = (first.parse().expect(text), last.parse().expect(text));
    (TaskRange::between(first, last + 1), max)
}
