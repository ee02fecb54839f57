//! Asking the allocator to give memory back.
//!
//! mimalloc gives pages back to the kernel as a thread goes on allocating. A worker whose burst is over and whose connections are idle allocates next to
//! nothing, and would keep what the burst has taken.
#![allow(unsafe_code)]

/// Gives back what the calling thread's part of the heap holds and does not use. Where another allocator is in use this does nothing.
pub(crate) fn give_back() {
    // SAFETY: takes no pointer and acts on the calling thread's own heap, which is initialized by its first use; mimalloc allows the call at any time.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
