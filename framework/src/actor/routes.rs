//! Several payload types in one pipeline: the task's type name chooses its handler.

use super::work::{Factory, Failure, Single, Work};
use crate::handler::{Assignment, Task, TaskContext, TaskError, TaskHandler};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use std::{collections::HashMap, fmt, sync::Arc, time::Instant};

/// Handlers by type name (`Partita-Type`, or the `ce-type` of a CloudEvent).
///
/// Each partition gets one instance of every handler; its tasks still run one at a time and in order, across types. A
/// task whose type has no handler is rejected, unless there is one for [`otherwise`](Self::otherwise).
#[derive(Clone, Default)]
pub struct Routes {
    by_type: HashMap<String, MakeRoute>,
    otherwise: Option<MakeRoute>,
}

type MakeRoute = Arc<dyn Fn(&Assignment) -> Box<dyn Route> + Send + Sync>;

impl Routes {
    /// No routes: every task is rejected.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tasks of this type go to the handler that `factory` makes. A second one for the same type replaces the first.
    pub fn on<H: TaskHandler>(
        mut self,
        type_name: impl Into<String>,
        factory: impl Fn(&Assignment) -> H + Send + Sync + 'static,
    ) -> Self {
        self.by_type.insert(type_name.into(), make(factory));
        self
    }

    /// Tasks without a type, or of a type that has no route, go to the handler that `factory` makes.
    pub fn otherwise<H: TaskHandler>(
        mut self,
        factory: impl Fn(&Assignment) -> H + Send + Sync + 'static,
    ) -> Self {
        self.otherwise = Some(make(factory));
        self
    }

    pub(crate) fn factory(self) -> Factory<Router> {
        Arc::new(move |assignment| Router {
            by_type: self.by_type.iter().map(|(name, make)| (name.clone(), make(assignment))).collect(),
            otherwise: self.otherwise.as_ref().map(|make| make(assignment)),
        })
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes")
            .field("types", &self.by_type.keys().collect::<Vec<_>>())
            .field("otherwise", &self.otherwise.is_some())
            .finish()
    }
}

fn make<H: TaskHandler>(factory: impl Fn(&Assignment) -> H + Send + Sync + 'static) -> MakeRoute {
    Arc::new(move |assignment| Box::new(Single(factory(assignment))))
}

/// `Work` behind a pointer: only pipelines with routes pay for a boxed future.
trait Route {
    fn assigned<'a>(&'a mut self, assignment: &'a Assignment) -> LocalBoxFuture<'a, Result<(), TaskError>>;
    fn attempt<'a>(
        &'a mut self,
        task: Task<Bytes>,
        ctx: &'a TaskContext,
    ) -> LocalBoxFuture<'a, Result<(), Failure>>;
    fn revoked(&mut self, deadline: Instant) -> LocalBoxFuture<'_, ()>;
}

impl<W: Work> Route for W {
    fn assigned<'a>(&'a mut self, assignment: &'a Assignment) -> LocalBoxFuture<'a, Result<(), TaskError>> {
        Box::pin(Work::assigned(self, assignment))
    }

    fn attempt<'a>(
        &'a mut self,
        task: Task<Bytes>,
        ctx: &'a TaskContext,
    ) -> LocalBoxFuture<'a, Result<(), Failure>> {
        Box::pin(Work::attempt(self, task, ctx))
    }

    fn revoked(&mut self, deadline: Instant) -> LocalBoxFuture<'_, ()> {
        Box::pin(Work::revoked(self, deadline))
    }
}

/// One partition's handlers by type.
pub(crate) struct Router {
    by_type: HashMap<String, Box<dyn Route>>,
    otherwise: Option<Box<dyn Route>>,
}

impl Router {
    fn all(&mut self) -> impl Iterator<Item = &mut Box<dyn Route>> {
        self.by_type.values_mut().chain(self.otherwise.as_mut())
    }
}

impl Work for Router {
    async fn assigned(&mut self, assignment: &Assignment) -> Result<(), TaskError> {
        for route in self.all() {
            (**route).assigned(assignment).await?;
        }
        Ok(())
    }

    async fn attempt(&mut self, task: Task<Bytes>, ctx: &TaskContext) -> Result<(), Failure> {
        let named = task.type_name.as_deref().and_then(|name| self.by_type.get_mut(name));
        match named.or(self.otherwise.as_mut()) {
            Some(route) => (**route).attempt(task, ctx).await,
            None => Err(Failure::UnknownType(match task.type_name {
                Some(name) => format!("no handler for tasks of type {name:?}"),
                None => "the task has no type, and no handler takes tasks without one".into(),
            })),
        }
    }

    async fn revoked(&mut self, deadline: Instant) {
        for route in self.all() {
            (**route).revoked(deadline).await;
        }
    }
}
