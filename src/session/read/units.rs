//! Units and dates as files write them.

/// Picometres in one `unit`; `None` where it is no unit of length (`1/nm`, `px`, nothing).
pub(in crate::session) fn length_pm(unit: &str) -> Option<f64> {
    let unit = plain(unit);
    Some(match unit.as_str() {
        "pm" => 1.0,
        "Å" | "A" => 1e2,
        "nm" => 1e3,
        "um" | "µm" => 1e6,
        "mm" => 1e9,
        "cm" => 1e10,
        "m" => 1e12,
        _ => match unit.to_lowercase().trim_end_matches('s') {
            "picometer" | "picometre" => 1.0,
            "angstrom" | "ångström" | "ång" | "ang" => 1e2,
            "nanometer" | "nanometre" => 1e3,
            "micron" | "micrometer" | "micrometre" => 1e6,
            "millimeter" | "millimetre" => 1e9,
            "centimeter" | "centimetre" => 1e10,
            "meter" | "metre" => 1e12,
            _ => return None,
        },
    })
}

/// Nanoseconds in one `unit`; `None` where it is no unit of time.
pub(in crate::session) fn duration_ns(unit: &str) -> Option<f64> {
    Some(match plain(unit).as_str() {
        "min" => 6e10,
        "s" | "sec" | "second" | "seconds" => 1e9,
        "ms" => 1e6,
        "us" | "µs" => 1e3,
        "ns" => 1.0,
        _ => return None,
    })
}

/// Without what is no part of the unit: spaces, the brackets and underscores of EMD (`[n_m]`), the escape of ImageJ
/// (`\u00B5m`); one code point each for micro and ångström.
fn plain(unit: &str) -> String {
    let unit = unit.trim();
    let bracketed = unit.strip_prefix('[').and_then(|unit| unit.strip_suffix(']'));
    bracketed
        .map_or_else(|| unit.to_owned(), |unit| unit.replace('_', ""))
        .replace("\\u00B5", "µ")
        .replace("\\u00C5", "Å")
        .replace('\u{03BC}', "µ")
        .replace('\u{212B}', "Å")
        .replace("A\u{030A}", "Å")
}

/// Unix time in ns of `2023-05-06T07:08:09.25`, taken as UTC; a `Z` may follow. `None` for anything else.
pub(in crate::session) fn unix_ns(date: &str) -> Option<u64> {
    let (day, clock) = date.trim().trim_end_matches('Z').split_once(['T', ' '])?;
    let whole = |text: &str| text.parse::<i64>().ok().filter(|value| (0..=9999).contains(value));
    let day: Vec<i64> = day.split('-').map(whole).collect::<Option<_>>()?;
    let (&[year, month, day], Some((minutes, seconds))) = (&day[..], clock.rsplit_once(':')) else {
        return None;
    };
    let (hour, minute) = minutes.split_once(':').and_then(|(h, m)| whole(h).zip(whole(m)))?;
    let seconds: f64 = seconds.parse().ok()?;
    let right = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && (0.0..61.0).contains(&seconds);
    if !right {
        return None;
    }
    // Days since 1970, with years that begin in March.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * years + years.div_euclid(4) - years.div_euclid(100)
        + years.div_euclid(400)
        + (153 * months + 2) / 5
        + day
        - 719_469;
    let whole_s = u64::try_from(days * 86_400 + hour * 3600 + minute * 60).ok()?;
    whole_s.checked_mul(1_000_000_000)?.checked_add((seconds * 1e9).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_length_are_told_apart() {
        for (unit, pm) in [
            ("pm", 1.0),
            ("Å", 1e2),
            ("\u{212B}", 1e2),
            ("A", 1e2),
            ("Angstroms", 1e2),
            ("nm", 1e3),
            (" nm ", 1e3),
            ("[n_m]", 1e3),
            ("[p_m]", 1.0),
            ("um", 1e6),
            ("µm", 1e6),
            ("\u{03BC}m", 1e6),
            ("\\u00B5m", 1e6),
            ("micron", 1e6),
            ("microns", 1e6),
            ("m", 1e12),
            ("Metres", 1e12),
        ] {
            assert_eq!(length_pm(unit), Some(pm), "{unit}");
        }
        for unit in
            ["", "px", "pixel", "generic", "1/nm", "[1/n_m]", "[n_m^-1]", "A^-1", "n_m", "nm^2", "s", "mrad"]
        {
            assert_eq!(length_pm(unit), None, "{unit}");
        }
    }

    #[test]
    fn units_of_time_are_told_apart() {
        for (unit, ns) in [("s", 1e9), ("[s]", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0), ("min", 6e10)] {
            assert_eq!(duration_ns(unit), Some(ns), "{unit}");
        }
        for unit in ["", "nm", "frame", "Hz"] {
            assert_eq!(duration_ns(unit), None, "{unit}");
        }
    }

    #[test]
    fn dates_become_unix_time() {
        for (date, ns) in [
            ("1970-01-01T00:00:00", 0),
            ("2000-02-29T12:34:56.5", 951_827_696_500_000_000),
            ("2023-11-14 22:13:20Z", 1_700_000_000_000_000_000),
            ("2026-11-25T04:51:11.366812", 1_795_582_271_366_812_000),
        ] {
            assert_eq!(unix_ns(date).map(|found| found / 1000), Some(ns / 1000), "{date}");
        }
        for date in [
            "",
            "2023-11-14",
            "2023-13-01T00:00:00",
            "2023-01-01T25:00:00",
            "1960-01-01T00:00:00",
            "a-b-cTd:e:f",
        ] {
            assert_eq!(unix_ns(date), None, "{date}");
        }
    }
}
