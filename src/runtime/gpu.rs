use super::{Result, RuntimeError};
use futures_intrusive::channel::shared::{OneshotReceiver, OneshotSender, oneshot_channel};
use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// An upload's staging memory is freed after each piece of this size.
const UPLOAD_BYTES: usize = 16 << 20;

/// Waits poll in slices, so that a loss noticed by another thread ends them.
const SLICE: Duration = Duration::from_millis(500);

/// A channel for the completion of some work, with its error, if any.
pub(super) type Sender = Arc<OneshotSender<Option<RuntimeError>>>;
pub(super) type Signal = OneshotReceiver<Option<RuntimeError>>;

/// The first error that made a device useless.
#[derive(Debug, Default)]
pub(super) struct Failure(Mutex<Option<RuntimeError>>);

impl Failure {
    pub fn set(&self, error: RuntimeError) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    pub fn check(&self) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }
}

/// A device with what all sessions on it share.
pub(super) struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub limits: wgpu::Limits,
    pub failure: Arc<Failure>,
    pub budget: Option<u64>,
    pub timeout: Duration,
    /// Whether kernels are checked as they run.
    pub checked: bool,
    used: Arc<AtomicU64>,
    /// How many buffers are created before one is refused, as by a driver out of memory.
    #[cfg(feature = "testing")]
    pub refuses: Mutex<Option<u64>>,
}

/// A buffer, counted against the budget while it lives.
#[derive(Debug)]
pub(super) struct DeviceBuffer {
    pub raw: wgpu::Buffer,
    used: Arc<AtomicU64>,
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        self.used.fetch_sub(self.raw.size(), Ordering::Relaxed);
    }
}

/// Returns the usages of a buffer that holds tensors.
pub(super) fn tensors() -> wgpu::BufferUsages {
    use wgpu::BufferUsages as Usage;
    Usage::STORAGE | Usage::UNIFORM | Usage::COPY_SRC | Usage::COPY_DST
}

/// Returns the value of a future that is ready at once, as native error scopes are.
pub(super) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn translate(error: wgpu::Error, what: &str, bytes: u64) -> RuntimeError {
    match error {
        wgpu::Error::OutOfMemory { .. } => RuntimeError::OutOfMemory { what: what.into(), bytes, limit: 0 },
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            RuntimeError::Validation { message: format!("{what}: {}", description.trim()) }
        }
    }
}

/// How an engine uses its device.
pub struct GpuOptions {
    /// Bytes of buffers at most.
    pub budget: Option<u64>,
    /// The longest wait for a submission.
    pub timeout: Duration,
    /// Whether kernels are checked as they run.
    pub checked: bool,
}

impl Gpu {
    pub fn new(device: wgpu::Device, queue: wgpu::Queue, options: GpuOptions) -> Self {
        Gpu {
            limits: device.limits(),
            device,
            queue,
            failure: Arc::default(),
            budget: options.budget,
            timeout: options.timeout,
            checked: options.checked,
            used: Arc::default(),
            #[cfg(feature = "testing")]
            refuses: Mutex::default(),
        }
    }

    /// Turns errors outside scopes and the loss of the device into typed errors of the next call.
    pub fn install_handlers(&self) {
        let failure = self.failure.clone();
        self.device.on_uncaptured_error(Arc::new(move |error| {
            let error = translate(error, "outside an error scope", 0);
            log::error!("{error}");
            failure.set(error);
        }));
        let failure = self.failure.clone();
        self.device.set_device_lost_callback(move |reason, message| {
            let reason = match reason {
                wgpu::DeviceLostReason::Destroyed => format!("it was destroyed. {message}"),
                _ => message,
            };
            failure.set(RuntimeError::DeviceLost { reason: reason.trim().trim_end_matches('.').to_owned() });
        });
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the result of `f`, or the error that the device raised meanwhile on this thread.
    pub fn scoped<T>(&self, what: &str, bytes: u64, f: impl FnOnce() -> T) -> Result<T> {
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let value = f();
        let errors = [now(internal.pop()), now(validation.pop()), now(memory.pop())];
        match errors.into_iter().flatten().flatten().next() {
            Some(error) => Err(self.cause(translate(error, what, bytes))),
            None => Ok(value),
        }
    }

    /// Returns the loss of the device if that is the cause of an error: wgpu refuses objects of a lost device as
    /// invalid.
    pub fn cause(&self, error: RuntimeError) -> RuntimeError {
        match error {
            RuntimeError::OutOfMemory { .. } => error,
            _ => self.check_alive().err().unwrap_or(error),
        }
    }

    /// Returns an error if the device is lost, even if nobody has reported it.
    ///
    /// wgpu reports it only to a callback, which on a borrowed device is the application's; but a buffer of a lost
    /// device is never mapped at creation.
    pub fn check_alive(&self) -> Result<()> {
        self.poll_once()?;
        if self.grants_buffers() { Ok(()) } else { Err(self.lost("it no longer creates buffers")) }
    }

    fn grants_buffers(&self) -> bool {
        let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
        let probe = wgpu::BufferDescriptor { label: Some("a probe"), size: 4, usage, mapped_at_creation: true };
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let mapped = self.device.create_buffer(&probe).get_mapped_range_mut(..).is_ok();
        let full = [now(validation.pop()), now(memory.pop())].into_iter().flatten().flatten().next().is_some();
        mapped || full
    }

    /// Returns an error if a buffer of this size is not possible.
    pub fn check_size(&self, what: impl FnOnce() -> String, bytes: u64) -> Result<()> {
        let limit = self.limits.max_buffer_size;
        if bytes > limit {
            return Err(RuntimeError::TooLarge { what: what(), bytes, limit, which: "largest buffer" });
        }
        Ok(())
    }

    /// Returns an error if this many more bytes would exceed the budget.
    pub fn check_budget(&self, what: impl FnOnce() -> String, bytes: u64) -> Result<()> {
        let left = self.budget.map_or(u64::MAX, |budget| budget.saturating_sub(self.used()));
        if bytes > left {
            return Err(RuntimeError::OutOfMemory { what: what(), bytes, limit: left });
        }
        Ok(())
    }

    pub fn buffer(&self, what: &str, bytes: u64, usage: wgpu::BufferUsages, mapped: bool) -> Result<DeviceBuffer> {
        self.failure.check()?;
        let size = bytes.max(4).next_multiple_of(4);
        self.check_size(|| what.to_owned(), size)?;
        let budget = self.budget.unwrap_or(u64::MAX);
        let add = |used: u64| used.checked_add(size).filter(|&total| total <= budget);
        if let Err(used) = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            let limit = budget.saturating_sub(used);
            return Err(RuntimeError::OutOfMemory { what: what.into(), bytes: size, limit });
        }
        let descriptor = wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: mapped };
        let made =
            self.grants(what, size).and_then(|()| self.scoped(what, size, || self.device.create_buffer(&descriptor)));
        match made.and_then(|raw| self.check_alive().map(|()| raw)) {
            Ok(raw) => Ok(DeviceBuffer { raw, used: self.used.clone() }),
            Err(error) => {
                self.used.fetch_sub(size, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Returns an error if a test wants this buffer refused.
    fn grants(&self, what: &str, bytes: u64) -> Result<()> {
        #[cfg(feature = "testing")]
        {
            let mut refuses = self.refuses.lock().unwrap_or_else(PoisonError::into_inner);
            let counted = *refuses;
            *refuses = counted.and_then(|left| left.checked_sub(1));
            if counted.is_some() && refuses.is_none() {
                return Err(RuntimeError::OutOfMemory { what: what.into(), bytes, limit: 0 });
            }
        }
        let _ = (what, bytes);
        Ok(())
    }

    /// Records commands and submits them; `what` names them in errors.
    pub fn submit(&self, what: &str, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<wgpu::SubmissionIndex> {
        self.failure.check()?;
        self.scoped(what, 0, || {
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(what) });
            record(&mut encoder);
            self.queue.submit([encoder.finish()])
        })
    }

    /// Runs the callbacks that are due, after waiting for the submission, if given; false on a timeout.
    fn poll(&self, wait: Option<(wgpu::SubmissionIndex, Duration)>) -> Result<bool> {
        let waits = wait.is_some();
        let poll = match wait {
            Some((index, timeout)) => wgpu::PollType::Wait { submission_index: Some(index), timeout: Some(timeout) },
            None => wgpu::PollType::Poll,
        };
        // wgpu 30 panics in `poll`, after it has released its locks, when the driver reports a lost device.
        match catch_unwind(AssertUnwindSafe(|| self.device.poll(poll))) {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(wgpu::PollError::Timeout)) => Ok(false),
            Ok(Err(wgpu::PollError::WrongSubmissionIndex(..))) => Err(self.lost("a submission was not accepted")),
            // It also panics when a wait has timed out and another thread sees the submission's end before it looks itself.
            Err(_) if waits && self.grants_buffers() => Ok(false),
            Err(_) => Err(self.lost("the driver reported an error during a wait")),
        }
    }

    /// Runs the callbacks that are due, without waiting.
    pub fn poll_once(&self) -> Result<()> {
        self.poll(None)?;
        self.failure.check()
    }

    /// Writes bytes into a buffer after the steps submitted before.
    pub fn upload(&self, target: &wgpu::Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        self.failure.check()?;
        let mut offset = offset;
        for piece in bytes.chunks(UPLOAD_BYTES) {
            let whole = piece.len() / 4 * 4;
            self.scoped("an upload", piece.len() as u64, || {
                if whole > 0 {
                    self.queue.write_buffer(target, offset, &piece[..whole]);
                }
                if whole < piece.len() {
                    let mut word = [0; 4];
                    word[..piece.len() - whole].copy_from_slice(&piece[whole..]);
                    self.queue.write_buffer(target, offset + whole as u64, &word);
                }
                self.queue.submit([])
            })?;
            offset += piece.len() as u64;
            self.poll_once()?;
        }
        self.check_alive()
    }

    /// Returns the error of a lost device, and keeps the first known reason.
    pub fn lost(&self, reason: &str) -> RuntimeError {
        let error = RuntimeError::DeviceLost { reason: reason.into() };
        self.failure.set(error.clone());
        self.failure.check().err().unwrap_or(error)
    }

    /// Waits until `ready` returns a value, which submission `index` makes it do.
    pub fn wait<T>(
        &self,
        label: &str,
        timeout: Duration,
        index: Option<&wgpu::SubmissionIndex>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let start = Instant::now();
        let mut finished = false;
        loop {
            if let Some(value) = ready() {
                return Ok(value);
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(RuntimeError::Timeout { label: label.into(), seconds: timeout.as_secs_f64() });
            }
            let wait = index.filter(|_| !finished).map(|i| (i.clone(), left.min(SLICE)));
            if finished || index.is_none() {
                // Another thread's poll took the callback and is about to run it.
                std::thread::sleep(Duration::from_micros(50));
            }
            finished |= self.poll(wait)?;
            if let Some(value) = ready() {
                return Ok(value);
            }
            self.failure.check()?;
        }
    }

    /// Waits until a submission is done.
    pub fn wait_done(&self, label: &str, timeout: Duration, index: &wgpu::SubmissionIndex) -> Result<()> {
        let start = Instant::now();
        while !self.poll(Some((index.clone(), timeout.min(SLICE))))? {
            self.failure.check()?;
            if start.elapsed() >= timeout {
                return Err(RuntimeError::Timeout { label: label.into(), seconds: timeout.as_secs_f64() });
            }
        }
        self.check_alive()
    }

    /// Waits on a separate thread until the callback that holds the other clone of `sender` has run, since nothing else
    /// may poll the device while an executor sleeps. Call it after the callback is registered.
    ///
    /// In a browser the device needs no polling, so this does nothing.
    pub fn wait_aside(self: &Arc<Self>, label: &str, index: wgpu::SubmissionIndex, timeout: Duration, sender: Sender) {
        #[cfg(not(target_arch = "wasm32"))]
        {
            let (gpu, label) = (self.clone(), label.to_owned());
            std::thread::spawn(move || {
                let ran = || (Arc::strong_count(&sender) == 1).then_some(());
                let error = match gpu.wait(&label, timeout, Some(&index), ran) {
                    Ok(()) => RuntimeError::DeviceLost { reason: "a callback was dropped".into() },
                    Err(error) => error,
                };
                // This fails, as it should, if the callback has already sent.
                let _ = sender.send(Some(error));
            });
        }
        #[cfg(target_arch = "wasm32")]
        let _ = (label, index, timeout, sender);
    }
}

/// Returns the two ends of a channel for one outcome.
pub(super) fn signal() -> (Sender, Signal) {
    let (sender, receiver) = oneshot_channel();
    (Arc::new(sender), receiver)
}
