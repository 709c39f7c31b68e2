//! Whether this node's certificate is good, and will be renewed in time.

use holdfast_trust::{Bundle, Validity};

use super::Finding;
use crate::certify;
use crate::config::Config;

const DAY: i64 = 24 * 3600;

/// What there is: nothing where the machine is in no cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Facts {
    None,
    /// The file is no keyring, and why.
    Unreadable(String),
    Certificate {
        validity: Validity,
        now_s: i64,
    },
}

impl Facts {
    pub(super) fn gather(config: &Config) -> Self {
        let Ok(text) = std::fs::read_to_string(config.data_dir.join("keys.pem")) else {
            return Self::None;
        };
        match Bundle::from_pem(&text).and_then(|bundle| bundle.certificate.validity()) {
            Ok(validity) => Self::Certificate { validity, now_s: certify::now_s() },
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }
}

pub(super) fn check(facts: &Facts) -> Option<Finding> {
    const NAME: &str = "certificate";
    let (validity, now_s) = match facts {
        Facts::None => return None,
        Facts::Unreadable(why) => {
            let cure = "a node whose key is lost is removed (holdfast node rm), and joins anew";
            return Some(Finding::problem(NAME, format!("keys.pem: {why}"), cure));
        }
        Facts::Certificate { validity, now_s } => (validity, *now_s),
    };
    let days = (validity.until_s - now_s) / DAY;
    Some(if now_s < validity.from_s {
        let cure = "set this machine's clock";
        Finding::problem(NAME, "this node's certificate is not valid yet by this clock", cure)
    } else if now_s > validity.until_s {
        let cure = "set the clock if it is wrong; a member makes itself another when holdfastd starts, a \
                    worker is removed (holdfast node rm) and joins anew";
        Finding::problem(NAME, "this node's certificate has expired", cure)
    } else if now_s >= validity.renew_at_s() + DAY {
        let cure = "holdfastd renews it by itself: look into its log for why it did not";
        Finding::warning(NAME, format!("this node's certificate ends in {days} days"), cure)
    } else {
        Finding::ok(NAME, format!("this node's certificate is good for {days} days"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    #[test]
    fn a_certificate_is_told_of_before_it_ends() {
        let grade = |day: i64| {
            let validity = Validity { from_s: 0, until_s: 30 * DAY };
            check(&Facts::Certificate { validity, now_s: day * DAY }).unwrap().grade
        };
        assert_eq!(grade(-1), Grade::Problem);
        assert_eq!((grade(0), grade(20)), (Grade::Ok, Grade::Ok));
        assert_eq!((grade(22), grade(29)), (Grade::Warning, Grade::Warning));
        assert_eq!(grade(31), Grade::Problem);
        assert_eq!(check(&Facts::None), None, "it is in no cluster");
        assert_eq!(check(&Facts::Unreadable("x".into())).unwrap().grade, Grade::Problem);
    }
}
