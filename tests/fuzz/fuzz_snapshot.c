/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saved machines that somebody has changed.  The first byte says what the rest is:
 *
 *   0   the state of a machine with its processors and devices, with changes: a list of
 *       {place16 len8 bytes...} laid over a good one
 *   1   the same without what is behind the last place
 *   2   what a shared folder remembers; the rest of the state is good
 *   3   the header of a file, under a right checksum
 *   4   the beginning of a file
 *   5   a file of translated code behind a header that is right
 *
 * State that is taken must leave a machine that can run, be saved, and be put back; whatever
 * happens to one that is refused, good state must be taken after it.
 */
#include "tests/fuzz/guest_machine.h"

#include "base/sha256.h"
#include "machine/code_file.h"
#include "machine/snapshot.h"
#include "machine/state.h"
#include "os/blob.h"
#include "os/loop.h"
#include "tests/fuzz/check.h"
#include "virtio/balloon.h"
#include "virtio/fs/fs.h"
#include "virtio/mmio.h"
#include "virtio/rng.h"
#include "virtio/vsock.h"
#include "vmm/boot.h"
#include "vmm/serial.h"

#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define CPUS 2u
#define DEVICES 4u	/* the last is the shared folder */
#define CODE_AT 0x180000u
#define CPUID_END (8 + sizeof(struct cpuid_table))	/* in state: what is before it only says whose state it is */
#define DEVICE_FIXED (8 + 48)	/* bytes of a device's state before its queues, with its length */
#define QUEUE_STATE 32u
#define HEADER_SUMMED 176u	/* bytes of a file's header in front of their checksum */

enum what { CHANGES, CHANGES_AND_CUT, FOLDER, HEADER, FILE_START, CODE_FILE, WHAT_COUNT };

static struct machine *m;
static struct vcpu_state start[CPUS];	/* of its processors */
static struct serial *serial;
static struct loop *loop;
static struct virtio_device *dev[DEVICES];
static struct virtio_mmio *mmio[DEVICES];
static struct blob good;
static size_t folder_at;	/* what the shared folder remembers, in good */
static char folder[64], file_path[64];
static int file;

static struct state_parts parts(void)
{
	return (struct state_parts){ .vm = m->vm, .platform = m->platform, .serial = serial, .mmio = mmio, .nmmio = DEVICES };
}

/* --- The machine --- */

static void stop(void *ctx)
{
	loop_quit(ctx);
}

/* The devices do what there is to do. */
static void pump(void)
{
	want(loop_post(loop, stop, loop) == 0);
	(void)loop_run(loop, NULL);
}

static void interrupt(void *ctx)
{
}

/* Uses all of the vector state, then computes for ever. */
static void put_code(void)
{
	static const uint8_t code[] = {
		0x0f, 0x58, 0xc8,	/* addps %xmm0, %xmm1 */
		0xd8, 0xc1,	/* fadd %st(1), %st */
		0x0f, 0xae, 0x1c, 0x24,	/* stmxcsr (%rsp) */
		0xff, 0xc0,	/* inc %eax */
		0xeb, 0xf3,	/* jmp back */
	};

	want(boot_tables(m->mem, NULL) == 0);
	want(mem_write(m->mem, CODE_AT, code, sizeof(code)) == 0);
	memcpy(m->image, m->mem->bank[0].host, MACHINE_RAM);
}

static void make_folder(void)
{
	static const char *const names[] = { "a", "b", "d/c" };
	char name[80];

	(void)snprintf(folder, sizeof(folder), "/tmp/roux-fuzz-snapshot-XXXXXX");
	want(mkdtemp(folder));
	(void)snprintf(name, sizeof(name), "%s/d", folder);
	want(mkdir(name, 0700) == 0);
	for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++) {
		int fd;

		(void)snprintf(name, sizeof(name), "%s/%s", folder, names[i]);
		fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		want(fd >= 0 && write(fd, "text", 4) == 4 && close(fd) == 0);
	}
}

static void remove_folder(void)
{
	static const char *const names[] = { "a", "b", "d/c", "d", "" };
	char name[80];

	for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++) {
		(void)snprintf(name, sizeof(name), "%s/%s", folder, names[i]);
		(void)remove(name);
	}
}

static void add_devices(void)
{
	const struct virtio_fs_options options = { .tag = "fuzz", .path = folder, .read_only = true };

	want(loop_create(&loop, NULL) == 0);
	want(serial_create(m->vm, SERIAL_COM1_BASE, SERIAL_COM1_IRQ, NULL, NULL, &serial, NULL) == 0);
	want(virtio_rng_create(loop, &dev[0], NULL) == 0);
	want(virtio_vsock_create(loop, 3, &dev[1], NULL) == 0);
	want(virtio_balloon_create(loop, false, &dev[2], NULL) == 0);
	want(virtio_fs_create(loop, &options, &dev[3], NULL) == 0);
	for (unsigned i = 0; i < DEVICES; i++) {
		struct bus_range range;

		want(virtio_mmio_create(dev[i], m->mem, 0xd0010000u + i * 0x1000, interrupt, NULL, &mmio[i], NULL) == 0);
		range = virtio_mmio_range(mmio[i]);
		want(bus_add(&m->vm->mmio, &range, NULL) == 0);
	}
}

static void save(struct blob *out)
{
	const struct state_parts all = parts();

	for (unsigned i = 0; i < DEVICES; i++)
		virtio_mmio_pause(mmio[i]);
	want(state_save(&all, out, NULL) == 0 && !out->failed);
	for (unsigned i = 0; i < DEVICES; i++)
		virtio_mmio_resume(mmio[i]);
}

static bool restore(const uint8_t *state, size_t len)
{
	struct blob_reader in = { .at = state, .left = len };
	const struct state_parts all = parts();
	struct err err;
	int r = state_restore(&all, &in, &err);

	want(r >= 0 || err.msg[0]);
	return r >= 0;	/* 1: with other files than it knew */
}

/* The lengths of devices' state are in front of them; the last begins where the others end. */
static size_t find_folder(void)
{
	struct blob without = { 0 };
	struct state_parts fewer = parts();
	size_t at;

	fewer.nmmio = DEVICES - 1;
	for (unsigned i = 0; i < DEVICES; i++)
		virtio_mmio_pause(mmio[i]);
	want(state_save(&fewer, &without, NULL) == 0);
	for (unsigned i = 0; i < DEVICES; i++)
		virtio_mmio_resume(mmio[i]);
	at = without.len;
	blob_finish(&without);
	return at;
}

static void setup(void)
{
	make_folder();
	(void)atexit(remove_folder);
	m = machine_create(CPUS);
	put_code();
	for (unsigned i = 0; i < CPUS; i++) {
		boot_long_mode_state(i, CODE_AT, 0, &start[i]);
		start[i].gpr[RSP] = 0x1f0000;
	}
	machine_reset(m, start, &m->vm_power_on);
	add_devices();
	save(&good);
	folder_at = find_folder();
	(void)snprintf(file_path, sizeof(file_path), "/proc/self/fd/%d", file = memfd_create("snapshot", MFD_CLOEXEC));
	want(file >= 0);
}

/* --- Inputs --- */

static void try_state(const uint8_t *state, size_t len)
{
	struct blob again = { 0 };
	struct machine_run run;

	if (restore(state, len)) {
		pump();
		machine_run(m, 1, &run);
		for (unsigned i = 0; i < CPUS; i++)
			want(run.exit[i] != VCPU_EXIT_ERROR || !strstr(run.err[i].msg, "translator itself"));
		pump();
		save(&again);
		blob_finish(&again);
	}
	machine_reset(m, start, &m->vm_power_on);
	want("good state is taken afterwards" && restore(good.bytes, good.len));
}

static void try_changes(const uint8_t *data, size_t len, bool cut)
{
	size_t size = good.len, place = size;
	uint8_t *state = malloc(size);

	want(state);
	memcpy(state, good.bytes, size);
	while (len >= 3) {
		size_t n = data[2];

		place = CPUID_END + (size_t)(data[0] | data[1] << 8) % (size - CPUID_END);
		data += 3;
		len -= 3;
		n = n < len ? n : len;
		n = n < size - place ? n : size - place;
		memcpy(state + place, data, n);
		data += n;
		len -= n;
	}
	if (cut && (state = realloc(state, place)))
		size = place;
	want(state);
	try_state(state, size);
	free(state);
}

static void try_folder(const uint8_t *data, size_t len)
{
	const size_t fixed = folder_at + DEVICE_FIXED + dev[DEVICES - 1]->nqueues * QUEUE_STATE;
	const uint64_t own = fixed - folder_at - 8 + len;
	uint8_t *state = malloc(fixed + len);

	want(state);
	memcpy(state, good.bytes, fixed);
	memcpy(state + folder_at, &own, sizeof(own));
	memcpy(state + fixed, data, len);
	try_state(state, fixed + len);
	free(state);
}

static void try_file(const uint8_t *data, size_t len, bool sum)
{
	static const uint8_t begin[] = { 'r', 'o', 'u', 'x', 's', 'n', 'a', 'p', 3 };
	uint8_t header[HEADER_SUMMED + SHA256_SIZE] = { 0 };
	struct snapshot snapshot;
	struct sha256 hash;
	uint64_t memory;

	want(ftruncate(file, 0) == 0 && pwrite(file, data, len, 0) == (ssize_t)len);
	if (sum) {
		memcpy(header, data, len < HEADER_SUMMED ? len : HEADER_SUMMED);
		memcpy(header, begin, sizeof(begin));
		memset(header + sizeof(begin), 0, 3);
		sha256_init(&hash);
		sha256_add(&hash, header, HEADER_SUMMED);
		sha256_finish(&hash, header + HEADER_SUMMED);
		want(pwrite(file, header, sizeof(header), 0) == (ssize_t)sizeof(header));
		memcpy(&memory, header + 24, sizeof(memory));
		if (ftruncate(file, (off_t)snapshot_size(memory)) < 0)
			return;	/* no file has that size */
	}
	if (snapshot_open(file_path, &snapshot, NULL) == 0) {
		want(snapshot.state_len <= SNAPSHOT_MEMORY && snapshot.memory > 0);
		want(memchr(snapshot.engine, '\0', sizeof(snapshot.engine)));
	}
	snapshot_close(&snapshot);
}

/* Where the header is right the engine looks whether the code is of this program; bytes of a fuzzer are not. */
static void try_code_file(const uint8_t *data, size_t len)
{
	struct {
		char magic[8];
		struct snapshot_id of;
		char engine[16];
		uint64_t bytes;
		uint32_t generation, zero;
		uint8_t sum[SHA256_SIZE];
	} h = { .magic = { 'r', 'o', 'u', 'x', 'c', 'o', 'd', '1' }, .engine = "dbt", .bytes = len };
	struct sha256 hash;
	uint32_t generation;

	sha256_init(&hash);
	sha256_add(&hash, &h, offsetof(__typeof__(h), sum));
	sha256_finish(&hash, h.sum);
	want(ftruncate(file, 0) == 0 && pwrite(file, &h, sizeof(h), 0) == sizeof(h));
	want(pwrite(file, data, len, CODE_FILE_HEADER) == (ssize_t)len);
	want(ftruncate(file, (off_t)(CODE_FILE_HEADER + len)) == 0);
	want(code_file_take_path(file_path, &h.of, m->vm, &generation, NULL) < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	enum what what;

	if (!m)
		setup();
	if (!len)
		return 0;
	what = data[0] % WHAT_COUNT;
	data++;
	len--;
	if (what == FOLDER)
		try_folder(data, len);
	else if (what == CODE_FILE)
		try_code_file(data, len);
	else if (what == HEADER || what == FILE_START)
		try_file(data, len, what == HEADER);
	else
		try_changes(data, len, what == CHANGES_AND_CUT);
	return 0;
}
