//! What counts depend on besides the source.

use std::process::Command;

/// The compiler, the C library, and the instruction sets that programs see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// `VERSION (COMMIT DATE)`.
    pub(crate) rustc: String,
    /// Name and version.
    pub(crate) libc: String,
    /// The architecture and what of it is chosen at run time, as valgrind shows it: valgrind's processor is its own, so that
    /// machines differ here only where they lack AVX2.
    pub(crate) cpu: String,
}

/// The compiler that cargo uses.
pub(crate) fn rustc() -> Result<String, String> {
    let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = first_line(Command::new(program).arg("--version")).ok_or("rustc --version says nothing")?;
    Ok(version.strip_prefix("rustc ").unwrap_or(&version).to_owned())
}

/// Empty where it cannot be told.
pub(crate) fn libc() -> String {
    first_line(Command::new("getconf").arg("GNU_LIBC_VERSION")).unwrap_or_default()
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

/// The instruction sets by which memchr, httparse, simd-json, simdutf8, sha2, aes-gcm and the C library choose their code; as this process
/// sees them.
pub(crate) fn cpu() -> String {
    let mut seen = vec![std::env::consts::ARCH];
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! see {
            ($($name:tt)*) => { $(if std::arch::is_x86_feature_detected!($name) { seen.push($name); })* };
        }
        see!("ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "avx2" "bmi1" "bmi2" "aes" "pclmulqdq" "sha" "vaes" "vpclmulqdq" "avx512f");
    }
    seen.join(" ")
}
