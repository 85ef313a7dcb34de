//! Seals what the library's own writer would never write: valid seals around lies.

use backup::{Credential, MasterKey};
use backup_backend::Bytes;
use backup_core::{
    BlockSealer, ChunkId, ChunkKind, DocumentContext, DocumentKind, Keys, PackBuilder, PackFooter,
    PackHeader, PackId, RepositoryConfig, RepositoryId, Segment, SegmentPack, SessionId, ShortId,
    open_directory, seal_document,
};
use backup_manifest::{
    Cell, Extent, ItemPath, ObjectName, SnapshotKind, SnapshotManifest, SnapshotStats, TreeRef,
    TreeRoot, pack_key, segment_key, snapshot_key,
};

use super::{MASTER, Objects, master};

/// A writer who holds the keys and means harm.
pub struct Forge {
    pub objects: Objects,
    pub keys: Keys,
    pub repository: RepositoryId,
    counter: u32,
}

/// What a forged snapshot says of itself.
#[derive(Debug, Clone)]
pub struct Claim {
    pub kind: SnapshotKind,
    pub root: TreeRoot,
    pub bytes: u64,
}

impl Forge {
    /// In the repository that `objects` are, which [`MASTER`] opens.
    pub fn new(objects: &Objects) -> Self {
        let config = RepositoryConfig::decode(&objects["config"]).unwrap();
        let keys = Keys::all(&master(MASTER));
        Self {
            objects: objects.clone(),
            keys,
            repository: config.claimed_repository(),
            counter: 0,
        }
    }

    pub fn credential() -> Credential {
        Credential::Master(MasterKey::from_bytes([MASTER; 32].into()))
    }

    fn next(&mut self) -> u32 {
        self.counter += 1;
        self.counter
    }

    /// The name of a session of `source`, later than all others.
    pub fn session(&mut self, source: &str) -> SessionId {
        let mut random = [0; 10];
        random[..4].copy_from_slice(&self.next().to_be_bytes());
        SessionId::new(self.keys.source_tag(source), 1 << 42, random)
    }

    /// A pack whose directory says of each piece of each block what the caller says.
    pub fn pack(&mut self, kind: ChunkKind, blocks: &[&[(ShortId, &[u8])]]) -> PackId {
        self.mixed_pack(kind, kind, blocks)
    }

    /// As [`Forge::pack`], with blocks sealed as one kind in a pack of another.
    pub fn mixed_pack(
        &mut self,
        kind: ChunkKind,
        sealed_as: ChunkKind,
        blocks: &[&[(ShortId, &[u8])]],
    ) -> PackId {
        let session = self.session("forger");
        let mut builder = PackBuilder::new(kind, session, self.counter, 0);
        let mut sealer = BlockSealer::new(self.repository, 3).unwrap();
        for block in blocks {
            let plain: Vec<u8> = block
                .iter()
                .flat_map(|(_, bytes)| bytes.iter().copied())
                .collect();
            let chunks: Vec<_> = block.iter().map(|(id, b)| (*id, b.len() as u32)).collect();
            let mut record = Vec::new();
            sealer
                .seal(&self.keys, sealed_as, &plain, &mut record)
                .unwrap();
            builder.push(&record, &chunks).unwrap();
        }
        let pack = builder
            .finish(&self.keys, self.repository, [self.counter as u8; 24])
            .unwrap();
        self.objects
            .insert(pack_key(&pack.id), Bytes::from(pack.bytes));
        pack.id
    }

    /// Stores a chunk in a pack of its own.
    pub fn chunk(&mut self, kind: ChunkKind, bytes: &[u8]) -> ChunkId {
        let id = self.keys.chunk_id(kind, bytes);
        self.pack(kind, &[&[(id.short(), bytes)]]);
        id
    }

    /// Stores content and names it as an extent.
    pub fn extent(&mut self, bytes: &[u8]) -> Extent {
        Extent::Data {
            len: bytes.len() as u32,
            id: self.chunk(ChunkKind::Data, bytes),
        }
    }

    /// Stores a page or list; the reference says of it what the caller says.
    pub fn page(&mut self, bytes: &[u8], first: &str, first_offset: u64) -> TreeRef {
        let id = self.chunk(ChunkKind::Tree, bytes);
        let first = ItemPath::from_bytes(first).unwrap();
        TreeRef {
            id,
            len: bytes.len() as u32,
            first,
            first_offset,
        }
    }

    /// Commits a snapshot with this root.
    pub fn snapshot(&mut self, source: &str, claim: Claim) -> SessionId {
        let id = self.session(source);
        let manifest = self.manifest(source, id, claim);
        self.cell(&id, &Cell::Snapshot(manifest).encode().unwrap());
        id
    }

    /// Commits a tree of these pages.
    pub fn tree(&mut self, source: &str, refs: Vec<TreeRef>) -> SessionId {
        let root = TreeRoot { level: 1, refs };
        self.snapshot(
            source,
            Claim {
                kind: SnapshotKind::Tree,
                root,
                bytes: 0,
            },
        )
    }

    pub fn manifest(&self, source: &str, session: SessionId, claim: Claim) -> SnapshotManifest {
        SnapshotManifest {
            session,
            nonce: [1; 16],
            source: source.into(),
            kind: claim.kind,
            host: String::new(),
            user: None,
            tags: Vec::new(),
            started_ns: 1,
            finished_ns: 2,
            previous: None,
            root: claim.root,
            stats: SnapshotStats {
                items: 1,
                files: 1,
                bytes: claim.bytes,
            },
            complete: true,
            skipped_count: 0,
            skipped: Vec::new(),
            program: "forge".into(),
            extras: Default::default(),
        }
    }

    /// Seals any plaintext as the cell of `id`.
    pub fn cell(&mut self, id: &SessionId, plain: &[u8]) {
        let name = snapshot_key(id);
        let sealed = self.seal(DocumentKind::Snapshot, &name, plain);
        self.objects.insert(name, sealed);
    }

    pub fn seal(&self, kind: DocumentKind, name: &str, plain: &[u8]) -> Bytes {
        let context = DocumentContext {
            kind,
            repository: self.repository,
            name: name.as_bytes(),
        };
        seal_document(&self.keys, context, [9; 24], plain)
            .unwrap()
            .into()
    }

    /// What an honest segment says of a pack.
    pub fn entry(&self, name: &str) -> SegmentPack {
        let bytes = &self.objects[name];
        let len = bytes.len() as u64;
        let footer = PackFooter::decode(bytes.last_chunk().unwrap()).unwrap();
        let place = footer.directory_range(len).unwrap();
        let sealed = &bytes[place.start as usize..place.end as usize];
        let header = bytes.first_chunk().unwrap();
        let directory = open_directory(&self.keys, self.repository, header, sealed, len).unwrap();
        let Ok(ObjectName::Pack(id)) = name.parse() else {
            panic!("{name} is no pack")
        };
        SegmentPack {
            id,
            kind: PackHeader::decode(header).unwrap().kind,
            len,
            directory,
        }
    }

    /// Names packs in a segment.
    pub fn segment(&mut self, packs: Vec<SegmentPack>) -> String {
        let sealed = Segment { packs }.seal(&self.keys, self.repository, [3; 24]);
        let (id, bytes) = sealed.unwrap();
        self.objects.insert(segment_key(&id), bytes.into());
        segment_key(&id)
    }
}
