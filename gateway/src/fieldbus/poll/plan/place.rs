//! What a device allows in one request, and what of it has to be read whole. Values.
//!
//! Invariant: a place is never split, and its span is a request that the device allows.

use std::time::Duration;

use crate::config;

use crate::fieldbus::{register::RegisterRange, transaction::Span};

use super::Item;

/// What a device answers in one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Most registers.
    pub(crate) registers: u16,
    /// Most coils or discrete inputs.
    pub(crate) bits: u16,
    /// Requests for coils and discrete inputs begin at address 0.
    pub(crate) bits_from_zero: bool,
    /// Each value is asked by itself.
    pub(crate) one_value: bool,
    /// Registers that are read in one request.
    pub(crate) blocks: Vec<Block>,
}

/// Registers that are read in one request, all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// Which.
    pub(crate) span: Span,
    /// Never with others.
    pub(crate) alone: bool,
}

/// What is read whole: points of the same registers, or those of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where it stands.
    pub(crate) own: Span,
    /// The least request that reads it.
    pub(crate) span: Span,
    /// The shortest interval of its points; the others' values are there when they are wanted.
    pub(crate) interval: Duration,
    /// Never read with others.
    pub(crate) alone: bool,
    /// Its points, by their addresses.
    pub(crate) items: Vec<Item>,
}

impl Limits {
    /// The limits that a device is configured with.
    pub(crate) fn of(device: &config::Device) -> Limits {
        let block = |range: &RegisterRange, alone| Block {
            span: range.span(),
            alone,
        };
        let together = device.read_together.iter().map(|one| block(one, false));
        let alone = device.read_alone.iter().map(|one| block(one, true));
        Limits {
            registers: device.max_registers,
            bits: device.max_bits,
            bits_from_zero: device.bits_from_zero,
            one_value: device.one_value_per_request,
            blocks: together.chain(alone).collect(),
        }
    }

    /// Most elements of a table in one request.
    pub(crate) fn most(&self, span: Span) -> u16 {
        if span.table.is_bits() {
            self.bits
        } else {
            self.registers
        }
    }

    /// The least request that the device allows to read `span`.
    pub(crate) fn request_for(&self, span: Span) -> Span {
        let whole = self.block(span).map_or(span, |block| block.span);
        if self.bits_from_zero && whole.table.is_bits() {
            Span {
                start: 0,
                count: u16::try_from(whole.end()).unwrap_or(u16::MAX),
                ..whole
            }
        } else {
            whole
        }
    }

    /// The places of points, by their addresses.
    pub(crate) fn places(&self, items: &[Item]) -> Vec<Place> {
        let own = |item: &Item| self.block(item.span).map_or(item.span, |block| block.span);
        let mut sorted: Vec<(Span, Item)> = items.iter().map(|item| (own(item), *item)).collect();
        sorted.sort_by_key(|(own, item)| (*own, item.span, item.point));
        let groups = sorted.chunk_by(|(one, _), (next, _)| one == next);
        groups.map(|group| self.place(group)).collect()
    }

    fn place(&self, group: &[(Span, Item)]) -> Place {
        let (own, _) = group[0];
        let items: Vec<Item> = group.iter().map(|(_, item)| *item).collect();
        let intervals = items.iter().map(|item| item.interval);
        Place {
            own,
            span: self.request_for(own),
            interval: intervals.min().unwrap_or_default(),
            alone: self.one_value || self.block(own).is_some_and(|block| block.alone),
            items,
        }
    }

    fn block(&self, span: Span) -> Option<&Block> {
        self.blocks.iter().find(|block| block.span.contains(span))
    }
}
