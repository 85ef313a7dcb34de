use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What stays of the snapshots of one source: whatever one of these rules keeps.
///
/// `Default` has no rule. A plan with such a policy is refused, so that a forgotten table in a configuration does not
/// give everything up; [`keep_last`](Self::keep_last) of [`u32::MAX`] keeps everything that is complete.
///
/// Serde reads and writes the fields by their names; absent ones have no rule, unknown ones are refused. `within` is
/// text, its units in descending order: `"2w"`, `"1d12h"`, `"90min"`. Units: `w d h min s ms us ns`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RetentionPolicy {
    /// How many of the newest complete snapshots stay.
    pub keep_last: u32,
    /// Of how many hours the newest complete snapshot stays. Hours, days and so on without one are not counted.
    pub hourly: u32,
    /// Of how many days, in UTC.
    pub daily: u32,
    /// Of how many weeks, which begin on Monday.
    pub weekly: u32,
    /// Of how many months.
    pub monthly: u32,
    /// Of how many years.
    pub yearly: u32,
    /// How long every snapshot stays, complete or not; zero is no rule.
    #[serde(with = "span", skip_serializing_if = "Option::is_none")]
    pub within: Option<Duration>,
    /// Labels that make a snapshot stay, complete or not.
    pub tags: Vec<String>,
}

/// The policy for each source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RetentionRules {
    /// For sources that have none of their own.
    pub default: RetentionPolicy,
    /// By the name of the source; nothing of `default` is added.
    pub per_source: BTreeMap<String, RetentionPolicy>,
}

impl RetentionPolicy {
    /// Whether no rule keeps anything.
    pub fn is_empty(&self) -> bool {
        let counts = [
            self.keep_last,
            self.hourly,
            self.daily,
            self.weekly,
            self.monthly,
            self.yearly,
        ];
        let within = self.within.unwrap_or_default();
        counts == [0; 6] && within.is_zero() && self.tags.is_empty()
    }
}

impl RetentionRules {
    /// The policy for a source: its own one, or else the default.
    pub fn policy(&self, source: &str) -> &RetentionPolicy {
        self.per_source.get(source).unwrap_or(&self.default)
    }
}

/// A length of time as text, such as `1d12h`: what people write into configurations.
mod span {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Minutes are not `m`, which restic takes for months in the same place.
    const UNITS_NS: [(&str, u128); 8] = [
        ("w", 7 * 24 * 3_600 * 1_000_000_000),
        ("d", 24 * 3_600 * 1_000_000_000),
        ("h", 3_600 * 1_000_000_000),
        ("min", 60 * 1_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];

    pub(super) fn serialize<S: Serializer>(
        span: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match span {
            Some(span) => serializer.serialize_str(&format(*span)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let expected = "expected a length of time such as 2w, 1d12h or 90min";
        parse(&text)
            .map(Some)
            .ok_or_else(|| de::Error::custom(expected))
    }

    fn format(span: Duration) -> String {
        let mut rest = span.as_nanos();
        let mut text = String::new();
        for (unit, unit_ns) in UNITS_NS {
            if rest >= unit_ns {
                text += &format!("{}{unit}", rest / unit_ns);
                rest %= unit_ns;
            }
        }
        match text.as_str() {
            "" => "0s".to_owned(),
            _ => text,
        }
    }

    fn parse(text: &str) -> Option<Duration> {
        let mut units = UNITS_NS.iter();
        let mut total_ns = 0_u128;
        let mut rest = text;
        loop {
            let (number, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
            let len = behind.find(|c: char| c.is_ascii_digit());
            let (unit, behind) = behind.split_at(len.unwrap_or(behind.len()));
            // Units already passed are used up: each comes once, larger ones first.
            let (_, unit_ns) = units.find(|(name, _)| *name == unit)?;
            let number: u64 = number.parse().ok()?;
            total_ns += u128::from(number) * unit_ns;
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        let seconds = u64::try_from(total_ns / 1_000_000_000).ok()?;
        let subsec_ns = u32::try_from(total_ns % 1_000_000_000).ok()?;
        Some(Duration::new(seconds, subsec_ns))
    }
}
