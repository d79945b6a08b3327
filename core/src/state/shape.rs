//! Shapes, interned by content: tasks of equal shape share one id.

use crate::job::Shape;
use crate::table::{Ordered, Shared, Table};
use minicbor::{Decode, Encode};
use yard_common::id::ShapeId;

/// The shapes of all jobs in the state.
#[derive(Clone, Debug, Default, Encode, Decode)]
pub struct Shapes {
    #[n(0)]
    records: Table<ShapeId, Interned>,
    #[n(1)]
    by_content: Ordered<Shared<Shape>, ShapeId>,
}

#[derive(Clone, Debug, Encode, Decode)]
struct Interned {
    #[n(0)]
    shape: Shared<Shape>,
    /// Jobs and allocations that use it.
    #[n(1)]
    users: u64,
}

impl Shapes {
    /// The shape.
    ///
    /// # Panics
    /// If nobody uses it any more.
    #[must_use]
    pub fn get(&self, id: ShapeId) -> &Shared<Shape> {
        &self.records[id].shape
    }

    /// The shape, unless nobody uses it any more.
    #[must_use]
    pub fn find(&self, id: ShapeId) -> Option<&Shared<Shape>> {
        self.records.get(id).map(|interned| &interned.shape)
    }

    /// All shapes with the number of their users.
    pub fn iter(&self) -> impl Iterator<Item = (ShapeId, &Shared<Shape>, u64)> {
        self.records.iter().map(|(id, interned)| (id, &interned.shape, interned.users))
    }

    /// All shapes in the order of their content.
    pub(super) fn by_content(&self) -> impl Iterator<Item = (&Shared<Shape>, ShapeId)> {
        self.by_content.iter().map(|(shape, id)| (shape, *id))
    }

    /// The id of a shape, with one user more.
    pub(crate) fn acquire(&mut self, shape: &Shape) -> ShapeId {
        if let Some(id) = self.by_content.get_by(|probe| (**probe).cmp(shape)).copied() {
            self.records[id].users += 1;
            return id;
        }
        let shape = Shared::from(shape.clone());
        let id = self.records.push(Interned { shape: shape.clone(), users: 1 });
        self.by_content.insert(shape, id);
        id
    }

    /// One user more of a shape that is in use.
    pub(crate) fn share(&mut self, id: ShapeId) {
        self.records[id].users += 1;
    }

    /// One user less; the last one takes the shape along.
    pub(crate) fn release(&mut self, id: ShapeId) {
        let interned = &mut self.records[id];
        interned.users -= 1;
        if interned.users == 0 {
            let shape = interned.shape.clone();
            self.records.remove(id);
            self.by_content.remove(&shape);
        }
    }
}
