//! For tests: the suite that every backend passes, and a backend that fails on command.
//!
//! ```
//! use backup_backend::{Memory, testing::{ConformanceOptions, conformance}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let options = ConformanceOptions::default();
//! let page_len = options.page_len;
//! conformance(|| async { Memory::new().with_page_len(page_len) }, options).await.assert_ok();
//! # }
//! ```

mod conformance;
mod faulty;
mod list_checks;
mod object_checks;
mod race_checks;
mod report;

pub use conformance::{ConformanceOptions, conformance};
pub use faulty::{Call, Fault, FaultPoint, Faulty, Operation};
pub use report::{Check, Outcome, Report};
