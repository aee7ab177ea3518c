// Windows of KH x KW pixels, SH x SW apart, over images of H x W pixels with TOP rows and LEFT columns in front of them:
// OH x OW windows an image. NHWC; C counts V. Of the lanes, ITEMS + ITEMS_PER_SAMPLE * n have something to do.
// PADDED: some window reaches outside the image; PADDING: pixels outside count, as zeros.
override ITEMS: u32;
override ITEMS_PER_SAMPLE: u32;
override H: u32;
override W: u32;
override C: u32;
override OH: u32;
override OW: u32;
override KH: u32;
override KW: u32;
override SH: u32;
override SW: u32;
override TOP: u32;
override LEFT: u32;
override PADDED: bool;
override PADDING: bool;

// First window, of stride `s`, that contains padded coordinate `at`.
fn first_window(at: u32, k: u32, s: u32) -> u32 {
    return select(0u, (max(at, k) - k) / s + 1u, at >= k);
}
