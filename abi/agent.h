/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Agent protocol: what the host and the agent in a Linux guest say to each
 * other over a byte stream (vsock; a serial port or unix socket in tests).
 *
 * One connection is one session.  Both sides send HELLO first, without waiting
 * for the other's, and go on speaking the highest version both know.
 *
 *   host                                   agent
 *   HELLO  --------------------------->
 *          <---------------------------    HELLO
 *   MOUNT, CLOCK, IDENTITY, PING, POWER,
 *   FREEZE, THAW,
 *   STATS, PROCESSES  ---------------->              any number, one at a time
 *          <---------------------------    OK | ERROR | STATS_REPLY | PROCESS* OK
 *   EXEC   --------------------------->              at most one a session
 *          <---------------------------    STARTED | ERROR
 *   STDIN* STDIN_EOF RESIZE* SIGNAL*  ->
 *          <---------------------------    STDOUT* STDERR* CREDIT*
 *          <---------------------------    EXITED    last; then the host closes
 *
 * A command that is DETACHED has no streams: the session ends with STARTED.  A session
 * may copy a file or a tree (copy/tree.h) instead of running a command:
 *
 *   GET    --------------------------->
 *          <---------------------------    (ENTRY DATA*)* END | ERROR
 *   PUT (ENTRY DATA*)* END  ---------->
 *          <---------------------------    OK | ERROR, which may come before END
 *
 * A frame is {u32 length, u8 type, u8 zero[3], payload[length]}; a payload is
 * either raw bytes (the stream frames) or fields {u16 tag, u16 zero, u32
 * length, bytes}.  Everything is little-endian; base/frame.h is the codec.
 * String fields carry their terminating NUL, which is their only one.  A
 * receiver ignores unknown tags that have AGENT_TAG_OPTIONAL set and refuses
 * the others with EPROTO; an unknown frame type ends the session.
 *
 * Flow control.  Output relies on the stream: when the host stops reading, the
 * agent stops reading the command's output.  Input has a window, so that a
 * command which ignores its input cannot delay a signal: the host sends at most
 * AGENT_STDIN_WINDOW bytes of STDIN beyond what CREDIT frames gave back.  So
 * the agent always reads, its buffers are bounded, and neither side can wait
 * for the other for ever.
 *
 * A host that closes (or half-closes) before EXITED hangs up: the command's
 * process group gets SIGHUP.
 */
#ifndef ABI_AGENT_H
#define ABI_AGENT_H

#define AGENT_MAGIC 0x58554f52u /* "ROUX" */
#define AGENT_VERSION 1u	/* highest version of this header */
#define AGENT_VERSION_MIN 1u	/* lowest version still understood */

/* vsock ports.  The guest listens on one and calls the host (CID 2) on the other. */
#define AGENT_PORT 5252u
/*
 * When the guest is ready, or has failed to become so, it connects here.  The
 * connection is an ordinary session which starts with the agent's HELLO or, if
 * the boot failed, HELLO and ERROR.  The host may run its first command on it
 * and so save a round trip, or close it.
 */
#define AGENT_READY_PORT 5253u

#define AGENT_FRAME_MAX (1024u * 1024u)	/* payload bytes: EXEC with its environment */
#define AGENT_DATA_MAX (64u * 1024u)	/* payload bytes of a stream frame */
#define AGENT_STDIN_WINDOW (128u * 1024u)	/* bytes; see flow control */

#define AGENT_SEED_MAX 512u	/* bytes */

/*
 * EXEC of these is a program that every guest has, the agent's own: it makes a process, reads its standard input to the end
 * and writes a line, as commands do.
 */
#define AGENT_SELF "/proc/self/exe"
#define AGENT_SELF_REHEARSE "--rehearse"

enum agent_frame {
	AGENT_HELLO = 1,	/* fields MAGIC, VERSION, VERSION_MIN; from the agent also UPTIME */

	/* host to agent */
	AGENT_READ_AHEAD = 15,	/* fields PATH, OFFSET and SIZE, in this order and as often as may be: have these bytes in memory.  Files that
				 * are not there are left out, and so is what half of the memory is too little for */
	AGENT_EXEC = 16,	/* fields ARG+ and any of ENV.. PRIMARY */
	AGENT_MOUNT = 17,	/* fields MOUNT_TYPE, MOUNT_TARGET, ... */
	AGENT_CLOCK = 18,	/* field CLOCK_NS: set the wall clock */
	AGENT_PING = 19,	/* empty */
	AGENT_POWER = 20,	/* fields POWER_HOW, GRACE_MS */
	AGENT_STATS = 21,	/* empty */
	AGENT_PROCESSES = 22,	/* empty */
	AGENT_GET = 23,	/* field PATH: send what is there; a symbolic link is followed */
	AGENT_STDIN = 24,	/* raw, 1..AGENT_DATA_MAX bytes */
	AGENT_STDIN_EOF = 25,	/* empty */
	AGENT_RESIZE = 26,	/* fields ROWS, COLS */
	AGENT_SIGNAL = 27,	/* field SIGNO */
	AGENT_IDENTITY = 29,	/* any of CLOCK_NS, SEED, HOSTNAME .. MACHINE_ID: this machine is a copy from now on */
	AGENT_PUT = 28,	/* fields PATH, NAME: receive into PATH as `docker cp` does */

	AGENT_FREEZE = 30,	/* empty: stop all programs, before the machine is saved; ERROR ENOENT: the kernel cannot */
	AGENT_THAW = 31,	/* empty: they go on; behind IDENTITY in a copy, in any session */

	/* a tree, either way */
	AGENT_ENTRY = 32,	/* fields PATH, MODE, UID, GID, MTIME_NS and SIZE or LINK */
	AGENT_DATA = 33,	/* raw, 1..AGENT_DATA_MAX bytes of the file before, SIZE in all */
	AGENT_END = 34,	/* empty: the tree is complete */

	/* agent to host */
	AGENT_OK = 64,	/* empty: the request was carried out; of READ_AHEAD field SIZE: bytes that were read */
	AGENT_ERROR = 65,	/* fields ERRNO, MESSAGE, STATUS; EXEC may not be tried again */
	AGENT_STARTED = 66,	/* field PID: execve() succeeded */
	AGENT_STDOUT = 67,	/* raw, 1..AGENT_DATA_MAX bytes; with a terminal all output */
	AGENT_STDERR = 68,	/* raw, likewise */
	AGENT_CREDIT = 69,	/* field CREDIT_BYTES: input bytes taken since the last one */
	AGENT_EXITED = 70,	/* field STATUS, or SIGNO when a signal killed it */
	AGENT_STATS_REPLY = 71,	/* fields MEM_TOTAL, MEM_AVAILABLE, CPU_NS, COUNT */
	AGENT_PROCESS = 72,	/* fields PID, PPID, UID, CPU_NS, RSS, COMMAND */
};

#define AGENT_TAG_OPTIONAL 0x8000u

enum agent_tag {
	/* HELLO */
	AGENT_TAG_MAGIC = 1,	/* u32 */
	AGENT_TAG_VERSION = 2,	/* u32 */
	AGENT_TAG_VERSION_MIN = 3,	/* u32 */
	AGENT_TAG_UPTIME_NS = 4 | 0x8000,	/* u64: guest CLOCK_BOOTTIME */

	/* EXEC */
	AGENT_TAG_ARG = 16,	/* string, one each, in order; the first is looked up in PATH */
	AGENT_TAG_ENV = 17,	/* string "NAME=value", one each; later ones win */
	AGENT_TAG_CWD = 18,	/* string, absolute; made when missing; default "/" */
	AGENT_TAG_USER = 19,	/* string "name|uid[:group|gid]" as in the image; default root */
	AGENT_TAG_TTY = 20,	/* u32 0 or 1: run on a new pseudo-terminal */
	AGENT_TAG_STDIN = 21,	/* u32 0 or 1: STDIN frames will follow; else /dev/null */
	AGENT_TAG_ROWS = 22,	/* u32, 1..65535 */
	AGENT_TAG_COLS = 23,	/* u32, 1..65535 */
	AGENT_TAG_PRIMARY = 24,	/* u32 0 or 1: power off when this session ends */
	AGENT_TAG_DETACHED = 25,	/* u32 0 or 1: the command has no streams, and outlives the session */

	/* MOUNT.  Types: "virtiofs" (source = tag), "tmpfs", "overlay" (options
	 * as mount(2) data), "bind" (source = absolute path), or any other the
	 * guest's kernel knows.  The target is made when missing. */
	AGENT_TAG_MOUNT_TYPE = 32,	/* string */
	AGENT_TAG_MOUNT_SOURCE = 33,	/* string */
	AGENT_TAG_MOUNT_TARGET = 34,	/* string, absolute */
	AGENT_TAG_MOUNT_FLAGS = 35,	/* u32, enum agent_mount_flag */
	AGENT_TAG_MOUNT_OPTIONS = 36,	/* string, file-system specific */

	AGENT_TAG_CLOCK_NS = 40,	/* u64 since 1970-01-01 UTC */
	AGENT_TAG_SEED = 43,	/* bytes, 1..AGENT_SEED_MAX: unpredictable */
	AGENT_TAG_HOSTNAME = 44,	/* string, 1..64 bytes */
	AGENT_TAG_RESET = 45,	/* empty: TCP connections are reset, but those within the guest and with hosts KEPT */
	AGENT_TAG_KEPT = 46,	/* string "ADDRESS/BITS", at most 4 times, as all of these */
	AGENT_TAG_OUTSIDE = 47,	/* string "ADDRESS": not kept, though it is there */
	AGENT_TAG_LEFT = 48,	/* string "ADDRESS/BITS": the first interface has it no more */
	AGENT_TAG_TAKEN = 49,	/* string "ADDRESS/BITS": it has it from now on */
	AGENT_TAG_MAC = 50,	/* 6 bytes: as well as that */
	AGENT_TAG_MACHINE_ID = 51 | 0x8000,	/* string, 32 lower-case hexadecimal digits: for machine-id(5) */
	AGENT_TAG_POWER_HOW = 41,	/* u32, enum agent_power */
	AGENT_TAG_GRACE_MS = 42,	/* u32: time between SIGTERM and SIGKILL; default 0 */

	/* replies, RESIZE, SIGNAL */
	AGENT_TAG_ERRNO = 64,	/* u32, positive Linux errno */
	AGENT_TAG_MESSAGE = 65,	/* string, one sentence */
	AGENT_TAG_STATUS = 66,	/* u32: exit status 0..255 (126, 127: could not be run) */
	AGENT_TAG_SIGNO = 67,	/* u32, Linux signal number */
	AGENT_TAG_PID = 68,	/* u32 */
	AGENT_TAG_CREDIT_BYTES = 69,	/* u32 */

	/* GET, PUT, ENTRY, READ_AHEAD */
	AGENT_TAG_PATH = 80,	/* string; of an ENTRY relative, "" for the top of the tree */
	AGENT_TAG_NAME = 81,	/* string: what the top is called where it comes from; "" for its contents only */
	AGENT_TAG_MODE = 82,	/* u32: st_mode of a file, folder, symbolic link, FIFO or socket (left out) */
	AGENT_TAG_UID = 83,	/* u32; also of PROCESS */
	AGENT_TAG_GID = 84,	/* u32 */
	AGENT_TAG_MTIME_NS = 85,	/* u64 since 1970 */
	AGENT_TAG_SIZE = 86,	/* u64: bytes of DATA that follow */
	AGENT_TAG_LINK = 87,	/* string: what a symbolic link says */
	AGENT_TAG_OFFSET = 88,	/* u64: of the first of SIZE bytes */

	/* STATS_REPLY, PROCESS */
	AGENT_TAG_MEM_TOTAL = 96,	/* u64 bytes */
	AGENT_TAG_MEM_AVAILABLE = 97,	/* u64 bytes */
	AGENT_TAG_CPU_NS = 98,	/* u64: CPU time used, of all processors or of the process */
	AGENT_TAG_COUNT = 99,	/* u32: processes */
	AGENT_TAG_PPID = 100,	/* u32 */
	AGENT_TAG_RSS = 101,	/* u64 bytes */
	AGENT_TAG_COMMAND = 102,	/* string: words with spaces between, cut off when long */
};

enum agent_mount_flag { AGENT_MOUNT_RDONLY = 1, AGENT_MOUNT_NOSUID = 2, AGENT_MOUNT_NODEV = 4,
			AGENT_MOUNT_NOEXEC = 8 };

enum agent_power { AGENT_POWER_OFF = 0, AGENT_POWER_REBOOT = 1 };

#endif /* ABI_AGENT_H */
