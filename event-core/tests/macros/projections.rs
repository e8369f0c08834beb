//! `#[projection]` on an `impl` block.

use event_core::prelude::*;
use event_core::{Metadata, Projection};

use crate::events::{Named, Tuple};

struct Counts {
    factor: i64,
}

#[projection(name = "macros-counts", version = 3)]
impl Counts {
    #[on("macros.named")]
    fn by_value(&self, event: Named, writes: &mut Writes) {
        writes.increment(event.repository, "by value", self.factor);
    }

    #[on("macros.named", "macros.t*")]
    #[event_core::on("macros.absent")]
    fn recorded(&self, event: &RecordedEvent, writes: &mut Writes) {
        writes.increment(event.event_type(), "recorded", 1);
    }

    #[on("macros.tuple")]
    fn in_any_order(
        &self,
        writes: &mut Writes,
        metadata: &Metadata,
        Tuple(name, _): &Tuple,
    ) -> Result<(), BoxError> {
        if name == "refused" {
            return Err("refused".into());
        }
        writes.set(name, &metadata.correlation_id)?;
        Ok(())
    }

    #[cfg(any())]
    #[on("macros.named")]
    fn left_out(&self, _: Nothing, _: &mut Writes) {}

    fn stays(&self) -> i64 {
        self.factor
    }
}

#[tokio::test]
async fn every_method_takes_its_events() {
    assert_eq!((Counts::NAME, Counts::VERSION), ("macros-counts", 3));
    let counts = Counts { factor: 5 };
    assert_eq!(counts.stays(), 5);
    let service = Service::builder("macros-projections")
        .without_discovered_handlers()
        .store(MemoryStore::new())
        .projection(counts)
        .build()
        .unwrap();
    let named = Named {
        repository: "a".into(),
        commits: 1,
    };
    let published = service
        .publish((named, Tuple("t".into(), 1)))
        .await
        .unwrap();
    service.run_until_idle().await.unwrap();
    let view = service.projection("macros-counts").unwrap();
    assert_eq!(view.count("a", "by value").await.unwrap(), 5);
    for event_type in ["macros.named", "macros.tuple"] {
        assert_eq!(view.count(event_type, "recorded").await.unwrap(), 1);
    }
    let correlation: String = view.get("t").await.unwrap().unwrap();
    let tuple = &published.events[1].event;
    assert_eq!(correlation, tuple.metadata().correlation_id);

    service.publish(Tuple("refused".into(), 2)).await.unwrap();
    let error = service.run_until_idle().await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!(view.count("macros.tuple", "recorded").await.unwrap(), 1);
}
