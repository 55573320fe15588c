// SPDX-License-Identifier: MPL-2.0

use std::collections::HashMap;
use std::hash::Hash;

/// Distinct values, with the number of publish points that have each.
#[derive(Debug)]
pub(crate) struct Counted<T> {
    counts: HashMap<T, usize>,
}

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Counted {
            counts: HashMap::new(),
        }
    }
}

impl<T: Clone + Eq + Hash> Counted<T> {
    pub(crate) fn add(&mut self, value: &T) {
        match self.counts.get_mut(value) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(value.clone(), 1);
            }
        }
    }

    /// Returns true where the value is gone now.
    pub(crate) fn remove(&mut self, value: &T) -> bool {
        let Some(count) = self.counts.get_mut(value) else {
            return false;
        };
        *count -= 1;
        let is_gone = *count == 0;
        if is_gone {
            self.counts.remove(value);
        }
        is_gone
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.counts.keys()
    }

    pub(crate) fn into_values(self) -> impl Iterator<Item = T> {
        self.counts.into_keys()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Returns true where there is a value other than this one.
    pub(crate) fn has_other(&self, value: &T) -> bool {
        self.counts.len() > usize::from(self.counts.contains_key(value))
    }
}
