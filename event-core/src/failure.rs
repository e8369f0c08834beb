//! What becomes of an event whose handler failed.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::BoxError;

/// How a handler that failed is called again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often it is called at most, the first time included; 8 by default.
    pub max: u32,
    /// How long it waits after the first failure; 100 ms by default. It doubles each time, with
    /// jitter.
    pub base: Duration,
    /// The longest it waits; 30 s by default.
    pub max_delay: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max: 8,
            base: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
        }
    }
}

impl Retry {
    pub(crate) fn delays(&self) -> backon::ExponentialBackoff {
        ExponentialBuilder::default()
            .with_min_delay(self.base)
            .with_max_delay(self.max_delay)
            .with_jitter()
            .without_max_times()
            .build()
    }
}

/// What becomes of an event whose handler has failed for the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExhausted {
    /// It is kept among the dead letters, and so is every later event of the same key that this
    /// handler takes, until somebody redrives or discards them.
    #[default]
    Park,
    /// It is left out, and the handler goes on with the next one.
    Skip,
    /// The group stops, with the event still to be handled.
    Stop,
}

/// What a handler's failures lead to: declared at the handler, or given to the
/// [builder](crate::ServiceBuilder::policy).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// How it is called again.
    pub retry: Retry,
    /// How long one call may take; without an end by default.
    pub timeout: Option<Duration>,
    /// What becomes of the event after the last attempt.
    pub on_exhausted: OnExhausted,
}

/// What an error means for the event that was being handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorClass {
    /// Trying again may help.
    #[default]
    Retry,
    /// Trying again may help, but not sooner than this.
    RetryAfter(Duration),
    /// Trying again is of no use: the event is a dead letter now.
    Reject,
    /// Nothing more can be done for any event: the group stops.
    Fatal,
}

/// An error that says what it means for the event. An error of a handler that does not implement
/// this is [`ErrorClass::Retry`].
///
/// ```
/// use event_core::prelude::*;
/// use event_core::{Classify, ErrorClass};
///
/// #[derive(Debug, thiserror::Error)]
/// enum AnalyzeError {
///     #[error("the repository is gone")]
///     Gone,
///     #[error("the analyzer is busy")]
///     Busy,
/// }
///
/// impl Classify for AnalyzeError {
///     fn class(&self) -> ErrorClass {
///         match self {
///             AnalyzeError::Gone => ErrorClass::Reject,
///             AnalyzeError::Busy => ErrorClass::Retry,
///         }
///     }
/// }
/// ```
pub trait Classify: Error + 'static {
    /// What it means.
    fn class(&self) -> ErrorClass;
}

/// Any error with a class of its own, for handlers that return a [`BoxError`].
///
/// ```
/// use event_core::{BoxError, ErrorClass, Failure};
///
/// fn check(commits: u32) -> Result<(), BoxError> {
///     if commits == 0 {
///         return Err(Failure::new(ErrorClass::Reject, "a push without commits").into());
///     }
///     Ok(())
/// }
/// # assert!(check(0).is_err());
/// ```
#[derive(Debug)]
pub struct Failure {
    class: ErrorClass,
    source: BoxError,
}

impl Failure {
    /// An error of this class.
    pub fn new(class: ErrorClass, source: impl Into<BoxError>) -> Self {
        Self {
            class,
            source: source.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.source()
    }
}

impl Classify for Failure {
    fn class(&self) -> ErrorClass {
        self.class
    }
}

/// Finds the class of a handler's error.
pub type Classifier = fn(&BoxError) -> ErrorClass;

/// The class of an error whose type says nothing: that of a [`Failure`], or [`ErrorClass::Retry`].
pub(crate) fn class_of_any(error: &BoxError) -> ErrorClass {
    error
        .downcast_ref::<Failure>()
        .map_or(ErrorClass::Retry, Classify::class)
}

/// The class of an error that is an `E`; else as [`class_of_any`].
pub(crate) fn class_of<E: Classify>(error: &BoxError) -> ErrorClass {
    match error.downcast_ref::<E>() {
        Some(error) => error.class(),
        None => class_of_any(error),
    }
}

/// Finds the classifier of a handler's output, for generated code: `(&ClassifierOf::<T>::NEW).find()`
/// gives the error's own where it has one, by method resolution, and else the ordinary one.
#[doc(hidden)]
pub struct ClassifierOf<T>(PhantomData<T>);

impl<T> ClassifierOf<T> {
    pub const NEW: Self = Self(PhantomData);
}

impl<T, E: Classify> ClassifierOf<Result<T, E>> {
    pub fn find(&self) -> Classifier {
        class_of::<E>
    }
}

#[doc(hidden)]
pub trait OrdinaryClassifier {
    fn find(&self) -> Classifier {
        class_of_any
    }
}

impl<T> OrdinaryClassifier for ClassifierOf<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("mine")]
    struct Mine;

    impl Classify for Mine {
        fn class(&self) -> ErrorClass {
            ErrorClass::Fatal
        }
    }

    #[test]
    fn an_error_has_its_own_class_or_the_ordinary_one() {
        let own = ClassifierOf::<Result<(), Mine>>::NEW.find();
        assert_eq!(own(&Mine.into()), ErrorClass::Fatal);
        assert_eq!(own(&"text".into()), ErrorClass::Retry);
        let ordinary = ClassifierOf::<Result<(), fmt::Error>>::NEW.find();
        assert_eq!(ordinary(&fmt::Error.into()), ErrorClass::Retry);
        let plain = ClassifierOf::<()>::NEW.find();
        let rejected: BoxError = Failure::new(ErrorClass::Reject, "no").into();
        assert_eq!(plain(&rejected), ErrorClass::Reject);
        assert_eq!(own(&rejected), ErrorClass::Reject);
    }
}
