// Every bound in the program, each with its why and its source. Past a bound the answer is a stated
// errno or error, never an allocation. Any plane.

const KIB = 1024;
const MIB = 1024 * KIB;

/** Longest path component, bytes. man path_resolution(7): NAME_MAX of every Linux file system. */
export const NAME_MAX_BYTES = 255;
/** Longest path in an archive, lock or manifest, bytes. limits.h PATH_MAX less its NUL. */
export const PATH_MAX_BYTES = 4095;
/** Longest symlink target, bytes. Linux refuses longer ones (PATH_MAX). */
export const SYMLINK_MAX_BYTES = 4095;

/** Largest LISAFS payload. LISAFS: message.go MaxMessageSize, 2 MiB less one page. */
export const LISAFS_MESSAGE_MAX_BYTES = 2 * MIB - 4 * KIB;
/** Channel window: 16 bytes of flipcall header, 4 of channel header, one largest payload, in pages. */
export const CHANNEL_WINDOW_BYTES = 2 * MIB;
/** What is kept of a channel's request while its reply overwrites it; paths take 10 KiB, and the data of a write isn't overwritten. */
export const CHANNEL_JOURNAL_BYTES = 64 * KIB;
/**
 * Channels granted per connection. The client asks for 2 to 4 (LISAFS: channel.go maxChannels); at
 * least one must be granted. Further ones get ENOMEM, which it takes quietly.
 */
export const CHANNELS_PER_CONNECTION_MAX = 4;
/** Connections (mounts) of one sandbox: futex_waitv takes 128 words, one is the doorbell. */
export const WAIT_WORDS_MAX = 128;
export const CONNECTIONS_MAX = 64;

/**
 * Of a server that sandboxes share: how many it serves at a time, and their connections. Each of these has two channels, so that all fit
 * into one wait; with the stub's, the daemon's and the clients' sockets of each they fit into its sockets.
 */
export const SHARED_SANDBOXES_MAX = 30;
export const SHARED_CONNECTIONS_MAX = 60;
export const SHARED_CHANNELS = 2;
/** Sockets that the native wait has room for, the broker's among them. */
export const SHARED_SOCKETS_MAX = 127;
/**
 * FDs that an upper of it may hold at the least, one for each inode that the sandbox knows: twice a sentry's own cache of names. Where the
 * process may not have so many files open for all, fewer sandboxes share. With 1,048,576, as most may, it is 16,964.
 */
export const SHARED_UPPER_FDS_MIN = 2_048;
/** Uppers that it has in its life: their mounts are made before it gives up making any. */
export const SHARED_UPPERS_MAX = 128;

/** Inodes a connection may hold alive in a stateful tree (an O_PATH FD each): EMFILE past it. */
export const CONTROL_FDS_MAX = 65_536;
/** Open FDs of one connection in a stateful tree or on incomplete files: EMFILE past it. */
export const OPEN_FDS_MAX = 65_536;
/**
 * FDs of a gofer that host directories and uppers leave to the rest: sockets, channels (2 each), indexes, blobs on their way to a
 * client and large files that are read by block. The others share what is left evenly.
 */
export const OTHER_FDS_MAX = 1_024;
/** Open directories with a position, per connection: EMFILE past it. */
export const OPEN_DIRS_MAX = 8_192;

/**
 * Files up to this size are completed inside OpenAt and donated. The sentry keeps the handle of the
 * first open, so the first answer decides (lisafs-wire section 6). 91% of files are under 64 KiB.
 */
export const DONATE_MAX_BYTES = 4 * MIB;
/** Fixed-size unit in which larger blobs are verified, fetched and cached: 128 to 256 KiB suit. */
export const BLOCK_BYTES = 256 * KIB;
/** Blobs over this size carry one digest per block, so a block can be trusted before the whole. */
export const BLOCK_DIGESTS_OVER_BYTES = 1 * MIB;
/** What is kept of a parked request: those that wait for bytes, OpenAt and PRead, have 16 and 24; decoders ignore what follows. */
export const PARKED_BYTES_MAX = 64;
/** A parked request is answered EIO after this long, from when the daemon last said that it works on it. */
export const MISS_DEADLINE_MS = 30_000;
/**
 * The daemon gives an ask up when its origin was silent for MISS_DEADLINE_MS less what an answer takes, and after this long whatever comes:
 * a link of 10 Mbit/s has brought 375 MB by then, several environments' imports. docs/design/0029-patience.md.
 */
export const ASK_MAX_MS = 300_000;
/** A parked request is answered EIO after this long whatever the daemon says. */
export const MISS_MAX_MS = 305_000;
/** Parked requests of one gofer: one per communicator can exist, so this bounds a bug, not a client. */
export const PARKED_MAX = 512;

/**
 * Largest and least 9P message. Linux's client sends none larger over a socket (net/9p/trans_fd.c, MAX_SOCK_BUF), and asks for no less
 * (net/9p/client.c, p9_client_create).
 */
export const NINEP_MESSAGE_MAX_BYTES = 1 * MIB;
export const NINEP_MESSAGE_MIN_BYTES = 4 * KIB;
/** What may come of a client before it has agreed upon a size. */
export const NINEP_FIRST_BYTES = 8 * KIB;
/** Clients of one 9P server at a time; further ones are disconnected. Each has buffers of four largest messages at most. */
export const NINEP_SESSIONS_MAX = 32;
/** Clients that are refused, while they are told so; further ones are just disconnected. */
export const NINEP_REFUSED_MAX = 4;
/** Requests of one client that wait for bytes: all clients together stay within PARKED_MAX. More wait unread, all behind them too. */
export const NINEP_PARKED_MAX = 16;
/** What is kept of one: two names and what goes with them. What is longer never waits. */
export const NINEP_PARKED_BYTES_MAX = 1 * KIB;
/** Requests of one client that are answered before another has its turn. */
export const NINEP_TURN_MESSAGES = 64;
/** How long a turn may take, but for its first request: of a directory of 10^5 names one listing from its middle takes some 20 ms. */
export const NINEP_TURN_MS = 5;
/** A client that has not said which protocol it speaks after this long is disconnected. */
export const NINEP_HELLO_MS = 10_000;
/** Fids of one client, and the places in trees that they know: Linux's client keeps a fid for each file it has seen of late. */
export const NINEP_FIDS_MAX = 65_536;
export const NINEP_PLACES_MAX = 131_072;
/** Blobs that the fids of one client hold open; past it files are opened for each read. */
export const NINEP_HOST_FDS_MAX = 512;
/** Bytes of extended attributes that the fids of one client hold. */
export const NINEP_ATTRIBUTE_BYTES_MAX = 4 * MIB;

/** Files and directories that one FUSE mount has open: ENFILE past it. */
export const FUSE_HANDLES_MAX = 65_536;
/** Files and directories that a server keeps open which the kernel opens by itself: it reads each in a few requests, one soon after the other. */
export const FUSE_UNOPENED_MAX = 256;
/** What is kept of a FUSE request that waits for bytes: a SETXATTR with the largest value, before a file is copied up. EIO past it. */
export const FUSE_PARKED_BYTES_MAX = 128 * KIB;
/** READs of a FUSE mount that stand in line while PARKED_MAX wait for bytes, at some 200 bytes each: EIO past it. */
export const FUSE_LINE_MAX = 16_384;
/** Requests of a FUSE mount that are answered before what the daemon says is heard. */
export const FUSE_TURN_REQUESTS = 64;

/** Bytes of a layer or snapshot index: 2^32 - 1 rows of nothing; offsets stay u32 within it. */
export const INDEX_MAX_BYTES = 0xffff_ffff;
/** Inodes in one index: about 20 times the largest conda environment seen. */
export const INDEX_INODES_MAX = 16_000_000;
/** Of all layers of a snapshot together, what upper ones hide included: 2 GB of tables while they are merged. */
export const MERGE_ENTRIES_MAX = 2 * INDEX_INODES_MAX;
/** Depth of directories in an index, view or archive. */
export const TREE_DEPTH_MAX = 256;

/** Entries in one archive at ingest; the largest conda package has about 60,000. */
export const ARCHIVE_ENTRIES_MAX = 2_000_000;
/** Directories in one archive, those that only its paths name among them: one path can name 255, for a few bytes when compressed. */
export const ARCHIVE_DIRECTORIES_MAX = 500_000;
/** Bytes of all paths, symlink targets and extended attributes in one archive: they are held in memory. */
export const ARCHIVE_TEXT_MAX_BYTES = 256 * MIB;
/** PAX records that hold for one entry, those of a global header among them: each costs time at each entry. */
export const PAX_RECORDS_MAX = 1_024;
/** Bytes of all files in one archive. */
export const ARCHIVE_BYTES_MAX = 64 * 1024 * MIB;
/** Bytes of a package that is downloaded when no lock says its size: several times the largest in use (about 2 GB). */
export const PACKAGE_MAX_BYTES = 8 * 1024 * MIB;
/** Bytes of a stage's manifest held in memory. */
export const METADATA_MAX_BYTES = 128 * MIB;

/** Objects of a stage on S3 that is listed: their keys are held in memory, some 1.3 KB each until the index is written. */
export const STAGE_OBJECTS_MAX = 1_000_000;
/** Bytes of their keys, ETags and version ids. */
export const STAGE_TEXT_MAX_BYTES = 256 * MIB;

/** A pack is closed when it reaches this size: large enough for few objects, small to re-upload. */
export const PACK_TARGET_BYTES = 32 * MIB;
/**
 * A demand fetch takes neighbouring chunks of the pack up to this many compressed bytes in one
 * request: the number of small files bounds the number of requests, and neighbours are imported next.
 */
export const FETCH_RUN_BYTES = 512 * KIB;
/**
 * What a delta makes, and what it makes it of: an index of some 500,000 files. Both are held in memory, with as much again of what is
 * between them; larger objects are stored whole.
 */
export const DELTA_BYTES_MAX = 64 * MIB;
/** Indexes and locators of fewer bytes are stored as they are: a stream would save less than a round trip's time on any link. */
export const COMPRESSED_MIN_BYTES = 128 * 1024;
/** How many times its own length a compressed object may expand to: those of real packages are 1.5 to 3, of empty files some 20. */
export const COMPRESSED_RATIO_MAX = 64;
/** What is longer is stored as it is: an index of two million files. */
export const EXPANDED_MAX_BYTES = 256 * MIB;
/** How long the daemon expands, verifies and copies small blobs in one turn of its loop, beside one of 1 MiB: what a segment brings is some 15 ms of that. */
export const FETCH_TURN_MS = 5;
/** Grafts in one view, besides its base. */
export const GRAFTS_MAX = 256;
/**
 * Memory that one job of the preloader may take besides a file that outgrows a pack: four packs (open, being sealed, two on their
 * way to the store) and the tables of a package of 60,000 files.
 */
export const PRELOAD_JOB_BYTES = 192 * MIB;
/** Memory of all its jobs together when nobody says: `--memory`. */
export const PRELOAD_MEMORY_BYTES = 1024 * MIB;
/** Asks that are kept of one command, and of all together: an import of a hundred packages has about a thousand. */
export const PROFILE_ASKS_MAX = 8_192;
/** Commands of one snapshot with a list of their own. */
export const PROFILE_COMMANDS_MAX = 16;
/** Asks of all lists together: the daemon reads and writes a profile as a whole, on its loop, in some 100 ms when it is full. */
export const PROFILE_ALL_ASKS_MAX = 32_768;
/** Packages of one snapshot of which others' starts are known, and asks of all of them: an environment has some hundreds. */
export const PROFILE_PACKAGES_MAX = 512;
export const PROFILE_COMPOSED_ASKS_MAX = 16_384;
/** A profile's file: all of these, each of four numbers of which three have up to ten digits. */
export const PROFILE_FILE_MAX_BYTES = 2 * MIB;
/** What a start has fetched ahead of it, at most. */
export const PROFILE_FETCH_MAX_BYTES = 1024 * MIB;
/** Files that are looked at to foresee what a start reads: an import of a hundred packages has some thousands. */
export const FORESEEN_FILES_MAX = 8_192;
/** What is fetched for it: several times what the largest stacks read when they start. */
export const FORESEEN_FETCH_MAX_BYTES = 512 * MIB;
/** Text or byte code that is looked at, in one turn of the loop: the largest of pandas has 430 KB. */
export const FORESEEN_TEXT_MAX_BYTES = 512 * KIB;
/** All of a start: the byte code that numpy and pandas import has 11 MB; 64 MiB are some seconds of work. */
export const FORESEEN_ALL_TEXT_MAX_BYTES = 64 * MIB;
/** Names that one file imports: the largest of numpy and pandas have some hundreds. More is made to cost: a list may be imported again and again. */
export const FORESEEN_IMPORTS_MAX = 8_192;
/** Of all of a start: 32 of each file that is looked at, where whole environments have some ten. */
export const FORESEEN_ALL_IMPORTS_MAX = 262_144;
/** Names of libraries that all files of a start are linked with: an environment of 300 packages has some thousands. */
export const FORESEEN_ALL_NEEDS_MAX = 32_768;
/** A module's whole name, and a library's: a longer one is no file's. */
export const FORESEEN_NAME_MAX_CHARS = 255;
/** Names of directories that are listed, of one and of all of a start: site-packages has some hundreds. */
export const FORESEEN_DIRECTORY_MAX_NAMES = 16_384;
export const FORESEEN_ALL_NAMES_MAX = 131_072;
/** Files that are looked for, found or not: the import of numpy and pandas looks for some thousands. */
export const FORESEEN_LOOKS_MAX = 131_072;
/** What is done of it in one turn of the loop, beside one file's own reading. */
export const FORESEEN_TURN_MS = 5;
/** A program up to this size is wanted whole, of a larger one what the linker reads: Python's own is mostly read, 20 of 26 blocks. */
export const FORESEEN_PROGRAM_MAX_BYTES = 16 * MIB;
/** The same of a library: of those up to some MiB nearly all blocks were read, of OpenBLAS's 36 MB a tenth. */
export const FORESEEN_LIBRARY_MAX_BYTES = 6 * MIB;
/** Words of a touch in its frame: snapshot and whether it was local, row, first block, count, ms. */
export const TOUCH_WORDS = 5;
/** Touches in one frame: an import of pandas fills four. */
export const TOUCHES_PER_FRAME = 500;
/** Touches that a gofer tells of, and the daemon hears, on one connection: what reads more is no start. */
export const TOUCHES_MAX = 65_536;
/** A list of what to bring to a node: a million paths of 60 bytes. */
export const PROFILE_MAX_BYTES = 64 * MIB;
/**
 * Direct mounts at a time: each has a server of some 45 MB, and what the kernel knows of its view. ENFILE past it, when all are in use; EDQUOT for
 * a tenant that has as many of them in use as are free (lib/daemon/direct-places.ts).
 */
export const DIRECT_VIEWS_MAX = 32;
/** How long one that no sandbox uses is kept for the next. */
export const DIRECT_IDLE_MS = 600_000;
/** A server of one that dies more often than so many times in so long has no successor: who reads what the kernel doesn't know has ENOTCONN. */
export const DIRECT_RESTARTS_MAX = 10;
export const DIRECT_RESTARTS_MS = 60_000;
/** How long a gofer waits for a direct mount: as long as its daemon gives a new server to answer, and a little. */
export const DIRECT_ASK_MS = 35_000;
