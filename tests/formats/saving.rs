//! What saving leaves behind, and where it may write.
