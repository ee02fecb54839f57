//! What stops a gateway although each setting is accepted: files that cannot be read, and combinations that this version does
//! not serve. Apart from loading, which is pure: `ringwall check` asks here, and `serve` before it binds anything.

use std::path::{Path, PathBuf};

use crate::guard::content::ContentFilter;

use super::fault::{Fault, Source, clip};
use super::load::Loaded;
use super::policy::{ContentPolicy, UpstreamTarget};
use super::tree::{ClientAuth, Profile};

/// The largest list that is read.
const LIST_BYTES_MAX: u64 = 4 * 1024 * 1024;

impl ContentPolicy {
    /// The content filter with its lists: those that the policy names, else the shipped ones.
    ///
    /// # Errors
    /// The file that cannot be read, or whose entries cannot, and why.
    pub fn read_filter(&self) -> Result<ContentFilter, (PathBuf, String)> {
        let mut lists = Vec::new();
        for path in &self.lists {
            let metadata =
                std::fs::metadata(path).map_err(|error| (path.clone(), format!("cannot be read: {}", error.kind())))?;
            if metadata.len() > LIST_BYTES_MAX {
                return Err((path.clone(), "is larger than 4 MiB".into()));
            }
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| (path.clone(), format!("cannot be read: {}", error.kind())))?;
            lists.push((path.display().to_string(), text));
        }
        let filter = match lists.is_empty() {
            true => ContentFilter::shipped(self.thresholds),
            false => {
                let named = lists.iter().map(|(name, text)| (name.as_str(), text.as_str()));
                ContentFilter::new(named, self.thresholds)
            }
        };
        filter.map_err(|(name, fault)| (PathBuf::from(name), format!("line {}: {}", fault.line, fault.why)))
    }
}

impl Loaded {
    /// Why `serve` would not start with these settings, as far as can be told without starting it.
    #[must_use]
    pub fn unservable(&self) -> Vec<Fault> {
        let mut faults = self.unreadable_files();
        let mut fault = |name: &str, why: &str, allowed: &str, example: &str| {
            let found = self.effective.iter().find(|one| one.name == name);
            faults.push(Fault {
                name: name.into(),
                value: found.map(|one| one.value_shown.clone()),
                source: found.map_or(Source::Default, |one| one.source),
                why: why.into(),
                allowed: allowed.into(),
                example: example.into(),
            });
        };
        if self.settings.tls.server.is_some() {
            // Never plain text in the place of TLS that was asked for.
            let why = "is not served by this version";
            fault("SSL_ENABLED", why, "false, with TLS in front", "TLS_TERMINATED_UPSTREAM=true");
        }
        if self.settings.profile == Profile::Production {
            if self.settings.policy.upstreams.is_empty() {
                let why = "no upstream is named, and production does not serve the sample server";
                fault(
                    "upstream",
                    why,
                    "at least one [upstream.NAME] in the policy file",
                    "--upstream http://10.0.0.5:3001/mcp",
                );
            }
            if self.settings.auth.door_token.is_none() && self.settings.policy.agents.is_empty() {
                let why = "no token is set and the policy names no agent: nobody could call";
                fault("WS_AUTH_TOKEN", why, "32 characters or more (`ringwall init` makes one)", "");
            }
        }
        faults
    }

    /// A fault for each file or directory that is named and cannot be read now.
    #[must_use]
    pub fn unreadable_files(&self) -> Vec<Fault> {
        let mut files: Vec<(String, &Path)> = Vec::new();
        if let Some(server) = &self.settings.tls.server {
            files.push(("SSL_CERT_PATH".into(), &server.cert_path));
            files.push(("SSL_KEY_PATH".into(), &server.key_path));
            if let ClientAuth::Optional(ca) | ClientAuth::Required(ca) = &server.client_auth {
                files.push(("SSL_CA_PATH".into(), ca));
            }
        }
        let mut faults = Vec::new();
        for upstream in &self.settings.policy.upstreams {
            if let Some(ca) = &upstream.tls.ca_file {
                files.push((format!("upstream.{}.ca_file", upstream.name), ca));
            }
            if let UpstreamTarget::Stdio(stdio) = &upstream.target
                && let Some(cwd) = stdio.cwd.as_deref().filter(|cwd| !cwd.is_dir())
            {
                let name = format!("upstream.{}.cwd", upstream.name);
                let why = "is not a directory".into();
                faults.push(self.file_fault(name, cwd, why, "an existing directory"));
            }
        }
        for (name, path) in files {
            let opened = std::fs::File::open(path).and_then(|file| file.metadata());
            let why = match opened {
                Ok(metadata) if metadata.is_dir() => "is a directory".into(),
                Ok(_) => continue,
                Err(error) => format!("cannot be read: {}", error.kind()),
            };
            faults.push(self.file_fault(name, path, why, "a readable file"));
        }
        if let Err((path, why)) = self.settings.policy.content.read_filter() {
            faults.push(self.file_fault("content.lists".into(), &path, why, "a list, see docs/content.md"));
        }
        faults
    }

    fn file_fault(&self, name: String, path: &Path, why: String, allowed: &str) -> Fault {
        let found = self.effective.iter().find(|one| one.name == name);
        let source = found.map_or(Source::Default, |one| one.source);
        let value = Some(clip(&path.display().to_string()));
        Fault { name, value, source, why, allowed: allowed.into(), example: String::new() }
    }
}
