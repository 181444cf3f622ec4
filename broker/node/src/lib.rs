//! A node of the overlay.
