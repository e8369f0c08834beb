//! Loaders that live as long as one execution.

use std::fmt;
use std::sync::Arc;

use async_graphql::Response;
use async_graphql::dataloader::DataLoader;
use async_graphql::extensions::{Extension, ExtensionContext, ExtensionFactory, NextExecute};
use async_graphql::{Data, async_trait};

type Put = Arc<dyn Fn(&mut Data) + Send + Sync>;

/// Puts a new [`DataLoader`] of each kind into the data of every execution: of a query, of a mutation, and
/// of *each event* of a subscription.
///
/// What is put into the data of a request lives as long as its subscription; a loader there that has a cache
/// answers for the tenth event what it has read for the first. This is an extension of the schema, as
/// extensions may add data to each execution.
///
/// ```
/// use std::collections::HashMap;
/// use std::convert::Infallible;
///
/// use async_graphql::dataloader::{DataLoader, HashMapCache, Loader};
/// use async_graphql::{Context, EmptyMutation, EmptySubscription, Object, Schema};
/// use event_graphql::FreshPerEvent;
///
/// struct Stars;
///
/// impl Loader<String> for Stars {
///     type Value = usize;
///     type Error = Infallible;
///
///     async fn load(&self, keys: &[String]) -> Result<HashMap<String, usize>, Infallible> {
///         Ok(keys.iter().map(|key| (key.clone(), key.len())).collect())
///     }
/// }
///
/// struct Query;
///
/// #[Object]
/// impl Query {
///     async fn stars(&self, context: &Context<'_>, repository: String) -> async_graphql::Result<Option<usize>> {
///         let loader = context.data::<DataLoader<Stars, HashMapCache>>()?;
///         Ok(loader.load_one(repository).await?)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let schema = Schema::build(Query, EmptyMutation, EmptySubscription)
///     .extension(FreshPerEvent::new().with(|| {
///         DataLoader::with_cache(Stars, tokio::spawn, HashMapCache::default())
///     }))
///     .finish();
/// let response = schema.execute(r#"{ stars(repository: "octo/hello") }"#).await;
/// assert_eq!(response.data.to_string(), "{stars: 10}");
/// # }
/// ```
#[derive(Clone, Default)]
pub struct FreshPerEvent {
    put: Vec<Put>,
}

impl FreshPerEvent {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts what this makes into the data of every execution: a [`DataLoader`], for example, or a value that
    /// holds several.
    pub fn with<T: Send + Sync + 'static>(
        mut self,
        make: impl Fn() -> T + Send + Sync + 'static,
    ) -> Self {
        self.put.push(Arc::new(move |data| data.insert(make())));
        self
    }

    /// Puts a new [`DataLoader`] without a cache over a loader that is cheap to clone into the data of
    /// every execution.
    pub fn loader<L: Clone + Send + Sync + 'static>(self, loader: L) -> Self {
        self.with(move || DataLoader::new(loader.clone(), tokio::spawn))
    }
}

impl ExtensionFactory for FreshPerEvent {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Extension for FreshPerEvent {
    async fn execute(
        &self,
        ctx: &ExtensionContext<'_>,
        operation_name: Option<&str>,
        next: NextExecute<'_>,
    ) -> Response {
        let mut data = Data::default();
        for put in &self.put {
            put(&mut data);
        }
        next.run_with_data(ctx, operation_name, data).await
    }
}

impl fmt::Debug for FreshPerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshPerEvent")
            .field("kinds", &self.put.len())
            .finish()
    }
}
