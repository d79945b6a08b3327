//! How people call what commands and refusals name by ids.

use super::State;
use crate::command::{Actor, Object, Rejection};

impl State {
    /// An object as people call it: `queue gpu`. By its id where it has no name, or is gone.
    #[must_use]
    pub fn name_of(&self, object: Object) -> String {
        let named = match object {
            Object::Workspace(id) => self.workspaces.get(id).map(|one| ("workspace", &one.name)),
            Object::User(id) => self.principals.get(id).map(|one| ("user", &one.name)),
            Object::Pool(id) => self.pools.get(id).map(|one| ("pool", &one.name)),
            Object::Queue(id) => self.queues.get(id).map(|one| ("queue", &one.name)),
            Object::Node(id) => self.nodes.get(id).map(|one| ("node", &one.name)),
            Object::Experiment(id) => self.experiments.get(id).map(|one| ("experiment", &one.name)),
            Object::Cluster
            | Object::Token(_)
            | Object::Mount(_)
            | Object::Job(_)
            | Object::Allocation(_)
            | Object::Definition
            | Object::Member(_) => None,
        };
        named.map_or_else(|| object.to_string(), |(kind, name)| format!("{kind} {name}"))
    }

    /// Who asked, as people call them.
    #[must_use]
    pub fn name_of_actor(&self, actor: Actor) -> String {
        match actor {
            Actor::User(id) => self.principals.get(id).map(|user| user.name.to_string()),
            Actor::Node(id) => self.nodes.get(id).map(|node| format!("node {}", node.name)),
            Actor::Leader | Actor::Bearer => None,
        }
        .unwrap_or_else(|| "the cluster".into())
    }
}

impl Rejection {
    /// For somebody who knows things by their names.
    #[must_use]
    pub fn told(&self, state: &State) -> String {
        let text = self.to_string();
        let Some(object) = self.object() else { return text };
        // The text of each that is about an object begins with it.
        match text.strip_prefix(&object.to_string()) {
            Some(rest) => format!("{}{rest}", state.name_of(object)),
            None => text,
        }
    }
}
