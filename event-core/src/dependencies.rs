//! Dependencies: what handlers need, found by type.

use std::any::{Any, TypeId, type_name};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use crate::aggregate::Aggregate;
use crate::codec::Codec;
use crate::event::EventDefinition;
use crate::repository::Repository;
use crate::store::EventStore;

/// A type that a handler may have as a field: any that can be cloned, and
/// [`Repository`] of any aggregate. It is found by its type, so that two of one type need types of
/// their own.
///
/// ```
/// use std::sync::Arc;
///
/// use event_core::prelude::*;
///
/// trait Analyzer: Send + Sync {}
///
/// struct Offline;
/// impl Analyzer for Offline {}
///
/// #[event_handler]
/// struct Repositories {
///     analyzer: Arc<dyn Analyzer>,
///     publisher: Publisher, // is always there
/// }
///
/// #[event_handler(group = "code-review")]
/// impl Repositories {
///     #[on("github.push")]
///     async fn push(&self, _: &RecordedEvent) {}
/// }
///
/// let analyzer: Arc<dyn Analyzer> = Arc::new(Offline);
/// let service = Service::builder("code-review")
///     .store(MemoryStore::new())
///     .provide(analyzer)
///     .build()?;
/// # Ok::<(), event_core::BuildError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a dependency of a handler",
    label = "cannot be handed to several handlers",
    note = "a dependency is cloned for each handler: wrap it in an `Arc`"
)]
pub trait Dependency: Sized + Send + Sync + 'static {
    /// The value, if it was provided.
    fn resolve(dependencies: &Dependencies) -> Option<Self>;

    /// The type and the events of the aggregate that it gives access to, if it does.
    fn aggregate() -> Option<(&'static str, &'static [EventDefinition])> {
        None
    }
}

impl<T: Clone + Send + Sync + 'static> Dependency for T {
    fn resolve(dependencies: &Dependencies) -> Option<Self> {
        dependencies
            .values
            .get(&TypeId::of::<T>())?
            .downcast_ref()
            .cloned()
    }
}

// A repository is not `Clone`, so this does not overlap with the above.
impl<A: Aggregate> Dependency for Repository<A> {
    fn resolve(dependencies: &Dependencies) -> Option<Self> {
        let store = Arc::<dyn EventStore>::resolve(dependencies)?;
        let codec = Codec::resolve(dependencies)?;
        Some(Repository::with_codec(store, codec))
    }

    fn aggregate() -> Option<(&'static str, &'static [EventDefinition])> {
        Some((A::TYPE, <A::Event as crate::Event>::DEFINITIONS))
    }
}

/// The values that handlers can ask for, by type.
#[derive(Default)]
pub struct Dependencies {
    values: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    /// The names of their types, for hints.
    names: BTreeSet<&'static str>,
    /// Each handler struct once, however many of its methods are handlers.
    instances: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Dependencies {
    /// Adds a value; whether there was none of its type before.
    pub(crate) fn insert<T: Clone + Send + Sync + 'static>(&mut self, value: T) -> bool {
        self.names.insert(type_name::<T>());
        self.values
            .insert(TypeId::of::<T>(), Box::new(value))
            .is_none()
    }

    /// What was provided in place of the type of this name: the same in an `Arc`, or without one.
    pub(crate) fn provided_instead(&self, name: &str) -> Option<&'static str> {
        const ARC: &str = "alloc::sync::Arc<";
        let bare = name
            .strip_prefix(ARC)
            .and_then(|rest| rest.strip_suffix('>'));
        match bare {
            Some(bare) => self.names.get(bare).copied(),
            None => self.names.get(format!("{ARC}{name}>").as_str()).copied(),
        }
    }

    /// The value of a type.
    ///
    /// # Errors
    /// [`MissingDependency`] where nobody provided it.
    pub fn get<T: Dependency>(&self) -> Result<T, MissingDependency> {
        T::resolve(self).ok_or(MissingDependency {
            dependency: type_name::<T>(),
        })
    }

    /// The handler struct `D`, made when it is first asked for.
    pub(crate) fn instance<D: Dependent>(&self) -> Result<Arc<D>, MissingDependency> {
        let mut instances = self
            .instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(Ok(found)) = instances
            .get(&TypeId::of::<D>())
            .map(|any| Arc::clone(any).downcast::<D>())
        {
            return Ok(found);
        }
        let made = Arc::new(D::resolve(self)?);
        instances.insert(TypeId::of::<D>(), Arc::clone(&made) as _);
        Ok(made)
    }
}

/// A struct that is made of its dependencies. `#[event_handler]` on a struct implements it; by hand it
/// reads:
///
/// ```
/// use event_core::{Dependencies, DependencyType, Dependent, MissingDependency, Publisher};
///
/// struct Repositories {
///     publisher: Publisher,
/// }
///
/// impl Dependent for Repositories {
///     fn dependencies() -> Vec<DependencyType> {
///         vec![DependencyType::of::<Publisher>()]
///     }
///
///     fn resolve(dependencies: &Dependencies) -> Result<Self, MissingDependency> {
///         Ok(Self {
///             publisher: dependencies.get()?,
///         })
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not made of dependencies",
    label = "its fields are not declared as dependencies",
    note = "add `#[event_handler]` to the definition of `{Self}`"
)]
pub trait Dependent: Sized + Send + Sync + 'static {
    /// The types of its fields.
    fn dependencies() -> Vec<DependencyType>;

    /// Makes it.
    ///
    /// # Errors
    /// [`MissingDependency`] where one is missing.
    fn resolve(dependencies: &Dependencies) -> Result<Self, MissingDependency>;
}

/// What a plain function is a method of.
impl Dependent for () {
    fn dependencies() -> Vec<DependencyType> {
        Vec::new()
    }

    fn resolve(_: &Dependencies) -> Result<Self, MissingDependency> {
        Ok(())
    }
}

/// The type of a dependency, to be checked when a service is built.
#[derive(Clone, Copy, Debug)]
pub struct DependencyType {
    name: fn() -> &'static str,
    provided: fn(&Dependencies) -> bool,
    aggregate: fn() -> Option<(&'static str, &'static [EventDefinition])>,
}

impl DependencyType {
    /// The type `T`.
    pub fn of<T: Dependency>() -> Self {
        Self {
            name: type_name::<T>,
            provided: |dependencies| T::resolve(dependencies).is_some(),
            aggregate: T::aggregate,
        }
    }

    /// Its name, as the compiler writes it.
    pub fn name(&self) -> &'static str {
        (self.name)()
    }

    pub(crate) fn is_provided(&self, dependencies: &Dependencies) -> bool {
        (self.provided)(dependencies)
    }

    pub(crate) fn aggregate(&self) -> Option<(&'static str, &'static [EventDefinition])> {
        (self.aggregate)()
    }
}

/// A dependency that nobody provided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "nobody provides `{dependency}`; add `.provide(…)` with a value of this type to the builder"
)]
pub struct MissingDependency {
    /// Its type.
    pub dependency: &'static str,
}
