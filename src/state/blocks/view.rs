//! What is blocked at one moment, immutable.
//!
//! Blocks of one address (IPv4) or one /64 (IPv6), of which there may be very many, stand in 256 shards, sorted, found by a keyed hash and a
//! binary search; another one copies its shard and shares the rest. All other networks, which only operators make, are one
//! [`Networks`], made anew when one comes or goes. There is one block a network.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::state::networks::{FOR_EVER, Networks, canonical};

const SHARDS: usize = 256;
/// Blocks of one shard. The hash is keyed, so nobody can fill one alone.
const SHARD_CAPACITY: usize = 256;
/// Blocks of single addresses at once.
pub const MAX_HOSTS: usize = SHARDS * SHARD_CAPACITY;

/// Why an address or network is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockKind {
    /// `IP_DENYLIST`: stands in the settings and in no view.
    DenyList,
    /// An operator has said so.
    Operator,
    /// Failed authentications.
    Lockout,
    /// Rate limits, broken again and again.
    Abuse,
}

impl BlockKind {
    /// Those that come and go while the process lives.
    pub const ALL: &'static [BlockKind] = &[BlockKind::Operator, BlockKind::Lockout, BlockKind::Abuse];

    /// The name in lists, in the database and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DenyList => "denylist",
            Self::Operator => "operator",
            Self::Lockout => "lockout",
            Self::Abuse => "abuse",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// Where a client asks to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The doors of agents: the bridge, TCP.
    Doors,
    /// The listeners of the control plane: admin, health.
    Control,
}

/// Where an automatic block was earned: there it holds for everyone, elsewhere for all who do not stand apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earned {
    /// Wherever.
    Anywhere,
    /// At the doors.
    AtDoors,
    /// At the control listeners.
    AtControl,
}

impl Earned {
    /// Whether it was earned at this place.
    #[must_use]
    pub fn at(self, place: Place) -> bool {
        match self {
            Self::Anywhere => true,
            Self::AtDoors => place == Place::Doors,
            Self::AtControl => place == Place::Control,
        }
    }

    fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Anywhere }
    }

    /// The name in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anywhere => "anywhere",
            Self::AtDoors => "doors",
            Self::AtControl => "control",
        }
    }

    /// The place of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Anywhere, Self::AtDoors, Self::AtControl].into_iter().find(|earned| earned.name() == name)
    }
}

/// One block.
#[derive(Debug)]
pub struct Block {
    /// Of whom. Without host bits, IPv4 as IPv4.
    pub network: IpNet,
    /// Why.
    pub kind: BlockKind,
    /// Where it was earned.
    pub earned: Earned,
    /// What is known of the cause, for people.
    pub reason: Box<str>,
    /// When it began, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// From then on it does not hold; [`FOR_EVER`]: until it is lifted.
    pub until_ms: u64,
    /// Whether it is on disk.
    stored: AtomicBool,
    /// Whether people were told.
    told: AtomicBool,
}

impl Block {
    /// A block that nobody knows of yet.
    #[must_use]
    pub fn new(network: IpNet, kind: BlockKind, reason: Box<str>, since_ms: u64, until_ms: u64) -> Self {
        let (stored, told) = (AtomicBool::new(false), AtomicBool::new(false));
        let (network, earned) = (canonical(network), Earned::Anywhere);
        Self { network, kind, earned, reason, since_ms, until_ms, stored, told }
    }

    /// The block of one address, or of its /64, for so long.
    #[must_use]
    pub fn of_address(
        ip: IpAddr,
        kind: BlockKind,
        earned: Earned,
        reason: Box<str>,
        now_ms: u64,
        duration_ms: u64,
    ) -> Self {
        let until_ms = now_ms.saturating_add(duration_ms);
        Self { earned, ..Self::new(host_network(ip), kind, reason, now_ms, until_ms) }
    }

    /// The same, earned there.
    #[must_use]
    pub fn earned_at(self, earned: Earned) -> Self {
        Self { earned, ..self }
    }

    /// The same, known to the database and to people.
    #[must_use]
    pub fn known(self) -> Self {
        self.note_stored();
        self.note_told();
        self
    }

    /// Whether its time is over.
    #[must_use]
    pub fn has_ended(&self, now_ms: u64) -> bool {
        now_ms >= self.until_ms
    }

    /// Whether it is on disk.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.stored.load(Ordering::Relaxed)
    }

    /// Notes that it is on disk.
    pub fn note_stored(&self) {
        self.stored.store(true, Ordering::Relaxed);
    }

    /// Whether people were told.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// Notes that people were told.
    pub fn note_told(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// What it is of, as people write it: an address alone without the length of its prefix.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(self.network)
    }

    fn is_automatic(&self) -> bool {
        matches!(self.kind, BlockKind::Lockout | BlockKind::Abuse)
    }
}

/// A network as people write it.
#[must_use]
pub fn shown(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() { network.addr().to_string() } else { network.to_string() }
}

/// What keeps an address out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Why.
    pub kind: BlockKind,
    /// Where it was earned.
    pub earned: Earned,
    /// Until when, milliseconds since the Unix epoch.
    pub until_ms: u64,
}

/// Sorts as lists do: IPv4 first, then by address, the widest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Order(bool, u128, u8);

impl Order {
    fn of(network: IpNet) -> Self {
        let bits = match network.addr() {
            IpAddr::V4(v4) => v4.to_bits().into(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        Self(network.addr().is_ipv6(), bits, network.prefix_len())
    }
}

type Shard = Arc<[(u128, Arc<Block>)]>;

/// All blocks at one moment.
#[derive(Clone, Debug)]
pub struct View {
    hosts: Box<[Shard]>,
    /// How many stand in `hosts`.
    hosts_len: usize,
    /// The rest, in order.
    others: Arc<BTreeMap<Order, Arc<Block>>>,
    networks: Arc<Networks>,
    hasher: RandomState,
    /// Automatic blocks that went before their end, for want of room.
    displaced: u64,
}

impl View {
    /// Of these.
    #[must_use]
    pub fn new(hasher: RandomState, blocks: impl IntoIterator<Item = Block>) -> Self {
        let mut shards: Vec<Vec<(u128, Arc<Block>)>> = vec![Vec::new(); SHARDS];
        let mut others = BTreeMap::new();
        for block in blocks {
            let block = Arc::new(block);
            match host_key(block.network) {
                Some(key) => {
                    if let Some(shard) =
                        shards.get_mut(shard_of(&hasher, key)).filter(|shard| shard.len() < SHARD_CAPACITY)
                    {
                        shard.push((key, block));
                    }
                }
                None => drop(others.insert(Order::of(block.network), block)),
            }
        }
        for shard in &mut shards {
            shard.sort_unstable_by_key(|(key, _)| *key);
            shard.dedup_by_key(|(key, _)| *key);
        }
        let hosts_len = shards.iter().map(Vec::len).sum();
        let networks = Arc::new(networks_of(&others));
        let hosts = shards.into_iter().map(Shard::from).collect();
        Self { hosts, hosts_len, others: Arc::new(others), networks, hasher, displaced: 0 }
    }

    /// What keeps this address out, wherever it was earned: an operator's block before all others.
    #[must_use]
    pub fn find(&self, ip: IpAddr, now_ms: u64) -> Option<Found> {
        if self.is_empty() {
            return None;
        }
        let ip = ip.to_canonical();
        let until_ms = self.networks.until_ms(ip);
        if until_ms > now_ms {
            return Some(Found { kind: BlockKind::Operator, earned: Earned::Anywhere, until_ms });
        }
        let block = self.host(address_key(ip)).filter(|block| !block.has_ended(now_ms))?;
        Some(Found { kind: block.kind, earned: block.earned, until_ms: block.until_ms })
    }

    /// The block of exactly this network.
    #[must_use]
    pub fn get(&self, network: IpNet) -> Option<&Arc<Block>> {
        let network = canonical(network);
        match host_key(network) {
            Some(key) => self.host(key),
            None => self.others.get(&Order::of(network)),
        }
    }

    fn host(&self, key: u128) -> Option<&Arc<Block>> {
        let shard = self.hosts.get(shard_of(&self.hasher, key))?;
        let at = shard.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        shard.get(at).map(|(_, block)| block)
    }

    /// A view with this block as well, or in the place of its network's. `None`: an operator's stands there that an automatic one does not
    /// change, or all there is room for is operators'.
    #[must_use]
    pub fn with(&self, block: &Arc<Block>, now_ms: u64) -> Option<Self> {
        let old = self.get(block.network).filter(|old| !old.has_ended(now_ms));
        let block = match old {
            Some(old) if block.is_automatic() && !old.is_automatic() => return None,
            Some(old) if block.is_automatic() => &merged(old, block),
            _ => block,
        };
        let mut next = self.clone();
        let Some(key) = host_key(block.network) else {
            let others = Arc::make_mut(&mut next.others);
            others.insert(Order::of(block.network), Arc::clone(block));
            next.networks = Arc::new(networks_of(others));
            return Some(next);
        };
        let shard = next.hosts.get_mut(shard_of(&self.hasher, key))?;
        let (before, mut entries) = (shard.len(), shard.to_vec());
        match entries.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(at) => entries.get_mut(at)?.1 = Arc::clone(block),
            Err(_) => {
                if entries.len() >= SHARD_CAPACITY {
                    entries.retain(|(_, block)| !block.has_ended(now_ms));
                }
                if entries.len() >= SHARD_CAPACITY {
                    let (at, _) = entries
                        .iter()
                        .enumerate()
                        .filter(|(_, (_, block))| block.is_automatic())
                        .min_by_key(|(_, (_, block))| block.until_ms)?;
                    entries.remove(at);
                    next.displaced = next.displaced.saturating_add(1);
                }
                let at = entries.partition_point(|(other, _)| *other < key);
                entries.insert(at, (key, Arc::clone(block)));
            }
        }
        next.hosts_len = next.hosts_len.saturating_sub(before).saturating_add(entries.len());
        *shard = entries.into();
        Some(next)
    }

    /// A view without the block of exactly this network; `None`: there is none.
    #[must_use]
    pub fn without(&self, network: IpNet) -> Option<Self> {
        let network = self.get(network)?.network;
        Some(self.keeping(|block| block.network != network))
    }

    /// A view without those that have ended.
    #[must_use]
    pub fn without_ended(&self, now_ms: u64) -> Self {
        self.keeping(|block| !block.has_ended(now_ms))
    }

    /// A view of those that are wanted; what does not change is shared.
    fn keeping(&self, wanted: impl Fn(&Block) -> bool) -> Self {
        let mut next = self.clone();
        for shard in &mut next.hosts {
            if shard.iter().any(|(_, block)| !wanted(block)) {
                *shard = shard.iter().filter(|(_, block)| wanted(block)).cloned().collect();
            }
        }
        next.hosts_len = next.hosts.iter().map(|shard| shard.len()).sum();
        if self.others.values().any(|block| !wanted(block)) {
            let others = Arc::make_mut(&mut next.others);
            others.retain(|_, block| wanted(block));
            next.networks = Arc::new(networks_of(others));
        }
        next
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.hosts.iter().flat_map(|shard| shard.iter().map(|(_, block)| block)).chain(self.others.values())
    }

    /// At most `limit` that are wanted, in the order of lists, behind this network.
    pub fn page(&self, after: Option<IpNet>, limit: usize, wanted: impl Fn(&Block) -> bool) -> Vec<Arc<Block>> {
        let after = after.map(Order::of);
        let behind = |block: &&Arc<Block>| after.is_none_or(|after| Order::of(block.network) > after) && wanted(block);
        let mut found: Vec<&Arc<Block>> = self.iter().filter(behind).collect();
        if found.len() > limit {
            found.select_nth_unstable_by_key(limit, |block| Order::of(block.network));
            found.truncate(limit);
        }
        found.sort_unstable_by_key(|block| Order::of(block.network));
        found.into_iter().cloned().collect()
    }

    /// How many are of this kind, ended ones among them until they are cleared away.
    #[must_use]
    pub fn count(&self, kind: BlockKind) -> usize {
        self.iter().filter(|block| block.kind == kind).count()
    }

    /// Automatic blocks that went before their end, for want of room, since the start.
    #[must_use]
    pub fn displaced(&self) -> u64 {
        self.displaced
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hosts_len.saturating_add(self.others.len())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Two automatic blocks of one network: the one that ends later, earned where both were.
fn merged(old: &Arc<Block>, new: &Arc<Block>) -> Arc<Block> {
    let later = if old.until_ms > new.until_ms { old } else { new };
    let earned = old.earned.and(new.earned);
    Arc::new(Block {
        earned,
        ..Block::new(later.network, later.kind, later.reason.clone(), new.since_ms, later.until_ms)
    })
}

fn networks_of(others: &BTreeMap<Order, Arc<Block>>) -> Networks {
    Networks::new(others.values().map(|block| (block.network, block.until_ms)))
}

fn shard_of(hasher: &RandomState, key: u128) -> usize {
    usize::from(hasher.hash_one(key).to_le_bytes()[0])
}

/// The network that an address is blocked as.
#[must_use]
pub fn host_network(ip: IpAddr) -> IpNet {
    match ip.to_canonical() {
        IpAddr::V4(v4) => Ipv4Net::from(v4).into(),
        IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new_assert(v6, 64).trunc()),
    }
}

/// Whether a network is what one address is blocked as.
#[must_use]
pub fn is_host(network: IpNet) -> bool {
    host_key(canonical(network)).is_some()
}

/// What an address is found by: IPv4 as IPv6 maps it, of IPv6 the /64.
#[must_use]
pub fn address_key(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits() >> 64 << 64,
    }
}

fn host_key(network: IpNet) -> Option<u128> {
    match network {
        IpNet::V4(v4) => (v4.prefix_len() == 32).then(|| v4.addr().to_ipv6_mapped().to_bits()),
        IpNet::V6(v6) => (v6.prefix_len() == 64).then(|| Ipv6Addr::to_bits(v6.network())),
    }
}

/// An end as lists have it: `None` for one that never comes.
#[must_use]
pub fn end_of(until_ms: u64) -> Option<u64> {
    (until_ms != FOR_EVER).then_some(until_ms)
}
