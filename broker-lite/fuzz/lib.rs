//! Counts what a decoder allocates, so that a few bytes that make much memory are a finding.
//!
//! Unsafe code stands here alone: an allocator cannot be written without.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Most memory at once per byte of input. A filter of one byte is the worst case: three bytes more
/// around it, and some hundred for the entry, doubled while the list of entries grows.
const PER_BYTE: usize = 128;
/// Most memory at once that does not depend on the input: one boxed packet of any type, and what
/// the check itself writes.
const AT_LEAST: usize = 16 * 1024;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes on to the system's allocator unchanged; only numbers are kept beside.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `pointer` came from `alloc` above, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs one decoder over `data`.
///
/// # Panics
/// It took more memory at once than so many bytes may cost.
pub fn within_bound(data: &[u8], run: impl FnOnce()) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    run();
    let taken = PEAK.load(Relaxed).saturating_sub(before);
    let bound = AT_LEAST + PER_BYTE * data.len();
    assert!(taken <= bound, "{taken} bytes of memory for {} of input", data.len());
}
