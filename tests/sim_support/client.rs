//! One process's way to the bucket: slow, failing, unsure of what it did.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup::backup_backend::async_trait;
use backup::backup_backend::{
    BackendError, ByteRange, Bytes, Capabilities, DeleteResult, ErrorKind, KeyPrefix, ObjectKey,
    ObjectMeta, PutMode, StorageBackend,
};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::bucket::{Effect, SimBucket};
use super::plan::{Fault, FaultPlan};
use super::random::Random;

/// Clones are the same client.
#[derive(Debug, Clone)]
pub(crate) struct SimClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    bucket: SimBucket,
    plan: Arc<FaultPlan>,
    state: Mutex<State>,
    /// Told when the request comes at which something happens to the process.
    doom: Notify,
}

#[derive(Debug)]
struct State {
    random: Random,
    /// Requests until the process is stopped.
    doomed_in: Option<u64>,
}

/// What becomes of one request.
#[derive(Debug)]
struct Fate {
    before: Duration,
    after: Duration,
    error_before: Option<BackendError>,
    error_after: Option<BackendError>,
    late: Option<Duration>,
    twice: Option<Duration>,
    /// The process stops here.
    doom: Option<Moment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

/// A request that was sent. When nobody waits for it any more it may arrive all the same.
struct UnderWay<'a> {
    client: &'a Inner,
    effect: Option<Effect>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(effect) = self.effect.take() {
            let random = &mut self.client.state.lock().unwrap().random;
            if random.below(2) == 0 {
                let delay = late(random);
                self.client.bucket.apply_later(effect, delay);
            }
        }
    }
}

/// Up to ten minutes, now and then up to ten days.
fn late(random: &mut Random) -> Duration {
    match random.below(8) {
        0 => random.time(600_000, 10 * 86_400_000),
        _ => random.time(1, 600_000),
    }
}

impl SimClient {
    /// `name` is what the trace calls it.
    pub(crate) fn new(
        name: String,
        bucket: SimBucket,
        plan: Arc<FaultPlan>,
        random: Random,
    ) -> Self {
        let state = State {
            random,
            doomed_in: None,
        };
        Self(Arc::new(Inner {
            name,
            bucket,
            plan,
            state: Mutex::new(state),
            doom: Notify::new(),
        }))
    }

    /// At the `nth` request from now [`SimClient::doom`] returns, and that request goes on only when it is polled again.
    pub(crate) fn doom_in(&self, nth: Option<u64>) {
        self.0.state.lock().unwrap().doomed_in = nth;
    }

    pub(crate) async fn doom(&self) {
        self.0.doom.notified().await;
    }
}

impl Inner {
    fn fate(&self, what: &'static str, key: &str) -> Fate {
        let state = &mut *self.state.lock().unwrap();
        let (plan, random) = (&self.plan, &mut state.random);
        let before = random.time(1, 200);
        let slow = plan.strikes(Fault::Slow, random);
        let is_slow_before = random.below(2) == 0;
        let hours = random.time(1000, 6 * 3_600_000);
        let mut fate = Fate {
            before: if slow && is_slow_before {
                hours
            } else {
                before
            },
            after: if slow && !is_slow_before {
                hours
            } else {
                random.time(1, 200)
            },
            error_before: None,
            error_after: None,
            late: None,
            twice: None,
            doom: None,
        };
        let lost = *random.one_of(&[ErrorKind::TimedOut, ErrorKind::Unavailable]);
        let error = |kind| BackendError::new(kind, what, key).with_source("simulated");
        if plan.strikes(Fault::Burst, random) {
            self.bucket.refuse_for(random.time(100, 600_000));
        }
        if plan.strikes(Fault::Refused, random) {
            let kinds = [
                ErrorKind::PermissionDenied,
                ErrorKind::Unauthenticated,
                ErrorKind::Io,
            ];
            fate.error_before = Some(error(*random.one_of(&kinds)));
        } else if plan.strikes(Fault::ErrorBefore, random) {
            fate.error_before = Some(error(lost));
        } else if plan.strikes(Fault::Late, random) {
            fate.late = Some(late(random));
            fate.error_after = Some(error(lost));
        } else if plan.strikes(Fault::ErrorAfter, random) {
            fate.error_after = Some(error(lost));
        } else if plan.strikes(Fault::Twice, random) {
            fate.twice = Some(late(random));
        }
        if let Some(left) = &mut state.doomed_in {
            *left -= 1;
            if *left == 0 {
                state.doomed_in = None;
                let moments = [Moment::Before, Moment::After];
                fate.doom = Some(*state.random.one_of(&moments));
            }
        }
        fate
    }

    /// Stops the process here, if this is its moment.
    async fn meet(&self, fate: &Fate, moment: Moment) {
        if fate.doom == Some(moment) {
            self.doom.notify_one();
            // Whoever is told stops polling; when it polls again, the process has been woken.
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn note(&self, what: &str, key: &str, outcome: &dyn Debug) {
        self.bucket.note(&self.name, what, key, outcome);
    }

    /// The way there: nothing has happened yet.
    async fn go(&self, fate: &mut Fate, what: &'static str, key: &str) -> Result<(), BackendError> {
        sleep(fate.before).await;
        self.meet(fate, Moment::Before).await;
        if let Some(error) = fate.error_before.take() {
            self.note(what, key, &error.kind());
            return Err(error);
        }
        if self.bucket.is_refusing() {
            let error = BackendError::new(ErrorKind::Throttled, what, key);
            self.note(what, key, &error.kind());
            return Err(error.with_retry_after(Duration::from_secs(1)));
        }
        Ok(())
    }

    /// The way back: it has happened, whatever is said.
    async fn come_back<T: Debug>(
        &self,
        mut fate: Fate,
        (what, key): (&'static str, &str),
        result: Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let lost = fate.error_after.is_some();
        let outcome = result.as_ref().err().map(BackendError::kind);
        self.note(what, key, &(outcome, lost));
        sleep(fate.after).await;
        self.meet(&fate, Moment::After).await;
        fate.error_after.take().map_or(result, Err)
    }

    /// Sends one effect and waits for the answer.
    async fn send(
        &self,
        what: &'static str,
        key: &ObjectKey,
        effect: Effect,
    ) -> Result<(), BackendError> {
        let mut fate = self.fate(what, key.as_str());
        let mut under_way = UnderWay {
            client: self,
            effect: Some(effect),
        };
        let gone = self.go(&mut fate, what, key.as_str()).await;
        let Some(effect) = under_way.effect.take() else {
            return gone;
        };
        gone?;
        if let Some(delay) = fate.late.or(fate.twice) {
            self.bucket.apply_later(effect.clone(), delay);
        }
        let result = match fate.late {
            Some(_) => Ok(()),
            None => self.bucket.apply(effect),
        };
        self.come_back(fate, (what, key.as_str()), result).await
    }

    /// What a hostile store makes of what is read; the length of a range stays as it was asked for.
    fn twist(&self, key: &ObjectKey, is_range: bool, bytes: Bytes) -> Result<Bytes, BackendError> {
        let state = &mut *self.state.lock().unwrap();
        let (plan, random) = (&self.plan, &mut state.random);
        let error = |kind| BackendError::new(kind, "get", key.as_str()).with_source("simulated");
        if plan.strikes(Fault::Missing, random) {
            return Err(error(ErrorKind::NotFound));
        }
        if plan.strikes(Fault::Truncated, random) {
            if is_range || random.below(2) == 0 {
                return Err(error(ErrorKind::Corrupt));
            }
            return Ok(bytes.slice(..random.below(bytes.len() as u64 + 1) as usize));
        }
        if plan.strikes(Fault::Exchanged, random) {
            let other = self.bucket.any(random.next()).unwrap_or_default();
            return Ok(match is_range {
                true if other.len() < bytes.len() => Bytes::from(vec![0; bytes.len()]),
                true => other.slice(..bytes.len()),
                false => other,
            });
        }
        if plan.strikes(Fault::Flipped, random) && !bytes.is_empty() {
            let mut bytes = bytes.to_vec();
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
            return Ok(bytes.into());
        }
        Ok(bytes)
    }

    /// The next page of a listing, or nothing; pages are never empty.
    async fn page(&self, at: &mut Place) -> Result<Vec<ObjectMeta>, BackendError> {
        let prefix = at.prefix.clone();
        let mut fate = self.fate("list", prefix.as_str());
        self.go(&mut fate, "list", prefix.as_str()).await?;
        let page = loop {
            let after = at.after.as_ref();
            let mut page = self.bucket.page(&prefix, after, self.plan.page_len);
            let Some(last) = page.last() else { break page };
            let last = last.key.clone();
            let state = &mut *self.state.lock().unwrap();
            let (plan, random) = (&self.plan, &mut state.random);
            let mut lost = Vec::new();
            if plan.strikes(Fault::ListLosesPage, random) {
                lost.append(&mut page);
            }
            if plan.strikes(Fault::ListLosesKey, random) && !page.is_empty() {
                lost.push(page.remove(random.below(page.len() as u64) as usize));
            }
            page.extend(lost.extract_if(.., |object| !plan.may_lose(object.key.as_str())));
            page.sort_by(|a, b| a.key.cmp(&b.key));
            for object in lost {
                self.note("list", object.key.as_str(), &"lost");
            }
            if !plan.strikes(Fault::ListRepeatsPage, random) {
                at.after = Some(last);
            }
            if !page.is_empty() {
                break page;
            }
        };
        let name = ("list", prefix.as_str());
        self.come_back(fate, name, Ok(page)).await
    }
}

/// Where a listing has come to.
struct Place {
    prefix: KeyPrefix,
    after: Option<ObjectKey>,
}

#[async_trait]
impl StorageBackend for SimClient {
    async fn put(&self, key: &ObjectKey, bytes: Bytes, mode: PutMode) -> Result<(), BackendError> {
        let effect = Effect::Put {
            key: key.clone(),
            bytes,
            mode,
        };
        self.0.send("put", key, effect).await
    }

    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Bytes, BackendError> {
        let mut fate = self.0.fate("get", key.as_str());
        self.0.go(&mut fate, "get", key.as_str()).await?;
        let got = self.0.bucket.get(key, range);
        let got = got.and_then(|bytes| self.0.twist(key, range.is_some(), bytes));
        self.0.come_back(fate, ("get", key.as_str()), got).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, BackendError> {
        let mut fate = self.0.fate("head", key.as_str());
        self.0.go(&mut fate, "head", key.as_str()).await?;
        let found = self.0.bucket.head(key);
        self.0.come_back(fate, ("head", key.as_str()), found).await
    }

    fn list<'a>(
        &'a self,
        prefix: &KeyPrefix,
    ) -> BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>> {
        let place = Place {
            prefix: prefix.clone(),
            after: None,
        };
        let pages = stream::unfold(Some(place), move |place| async move {
            let mut place = place?;
            match self.0.page(&mut place).await {
                Ok(page) if page.is_empty() => None,
                Ok(page) => Some((Ok(page), Some(place))),
                Err(error) => Some((Err(error), None)),
            }
        });
        pages.boxed()
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError> {
        let mut results = Vec::with_capacity(keys.len());
        for key in keys {
            results.push(
                self.0
                    .send("delete", key, Effect::Delete(key.clone()))
                    .await,
            );
        }
        Ok(results)
    }

    fn capabilities(&self) -> Capabilities {
        self.0.plan.claims
    }
}
