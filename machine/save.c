/* SPDX-License-Identifier: Apache-2.0 */
/* A running machine saved, and one made of what was saved. */
#include "machine/inside.h"

#include "base/checked.h"
#include "block/block.h"
#include "engine/dbt/engine_dbt.h"
#include "machine/code_file.h"
#include "machine/control.h"
#include "machine/engines.h"
#include "machine/reads.h"
#include "machine/snapshot.h"
#include "machine/state.h"
#include "os/blob.h"
#include "os/err.h"
#include "os/log.h"
#include "virtio/blk.h"
#include "virtio/fs/fs.h"
#include "virtio/mmio.h"
#include "virtio/vsock.h"
#include "vmm/generation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ROUNDS_MAX 5u	/* of sending what a guest has written, which may write faster than that */
#define FEW_PAGES 512u	/* that it stands still for: half a millisecond */
#define CODE_OF_BOOT_MAX (128ull << 20)	/* bytes: every boot copies it all */
#define CODE_MAX (384ull << 20)	/* of a template's, which is mapped: compilers have half of that */
#define CODE_LARGE (64ull << 20)	/* a file of more is written anew for much only */
#define CODE_A_BLOCK 4096u	/* bytes beyond that which must bring one translation more */
#define GENERATIONS_MAX 16u	/* of a file with code: what few guests run is not worth more */
#define GENERATIONS_EAGER 4u	/* after so many each must bring twice as much */

static void parts_of(struct machine *m, struct state_parts *ret_parts, struct virtio_mmio *mmio[DEVICES_MAX])
{
	for (unsigned i = 0; i < m->nslots; i++)
		mmio[i] = m->slot[i].mmio;
	*ret_parts = (struct state_parts){ .vm = m->vm, .platform = m->platform, .serial = m->serial, .mmio = mmio,
					   .nmmio = m->nslots };
}

/* What the guest was then, for machine_keep(). */
static void hold_snapshot(struct machine *m, int fd)
{
	void *at = mmap(NULL, m->mem->size, PROT_READ, MAP_SHARED, fd, SNAPSHOT_MEMORY);

	machine_forget_snapshot(m);
	m->snapshot.memory = at == MAP_FAILED ? NULL : at;
	m->snapshot.let_go = false;
}

int machine_hold_snapshot(struct machine *m, int fd, struct err *err)
{
	struct snapshot_id id;
	int r = m->snapshot.let_go ? snapshot_read_id(fd, m->mem->size, &id) : -EINVAL;

	if (r == 0 && memcmp(&id, &m->snapshot.id, sizeof(id)) != 0)
		r = -ESTALE;
	if (r < 0)
		return err_set(err, r, "this is not the snapshot that was saved: %s", strerror(-r));
	hold_snapshot(m, fd);
	return m->snapshot.memory ? 0 : err_set(err, -ENOMEM, "cannot map a snapshot");
}

static int take_code(struct machine *m, const struct snapshot *s, struct err *err)
{
	uint64_t at;
	int fd, r = snapshot_code(s, &fd, &at);

	if (r < 0)
		return err_set(err, r, "translated code of the snapshot is damaged");
	r = code_file_take(fd, at, s->code, &s->id, m->vm, &m->snapshot.generation, err);
	(void)close(fd);
	return r;
}

int machine_make_vm(struct machine *m, const struct snapshot *snapshot, const struct machine_spec *spec, struct err *err)
{
	struct cpuid_table cpuid;
	int r;

	if (state_cpuid(snapshot->state, snapshot->state_len, &cpuid) < 0)
		return err_set(err, -EINVAL, "snapshot %s: the saved state is not of a machine like this", spec->restore);
	r = vm_create_as(m->engine, m->mem, spec->cpus, &cpuid, &m->vm, err);
	return r < 0 ? err_prefix(err, r, "snapshot %s", spec->restore) : 0;
}

/* Names what a guest would miss. */
static int missing(struct machine *m, const struct machine_spec *spec, struct err *err)
{
	for (unsigned i = 0; i < spec->nshares; i++) {
		const char *path = virtio_fs_lost(m->share[i]);

		if (*path)
			return err_set(err, -ESTALE, "%s/%s, which the guest has open, was removed or replaced", spec->share[i].path, path);
	}
	return err_set(err, -ESTALE, "files in a shared folder that the guest has open were removed or replaced");
}

int machine_restore(struct machine *m, struct snapshot *snapshot, const struct machine_spec *spec, struct err *err)
{
	struct blob_reader in = { .at = snapshot->state, .left = snapshot->state_len };
	struct virtio_mmio *mmio[DEVICES_MAX];
	struct state_parts parts;
	int r = 0;

	if (spec->code)
		r = code_file_take_path(spec->code, &snapshot->id, m->vm, &m->snapshot.generation, err);
	else if (snapshot->code && !spec->no_code)
		r = take_code(m, snapshot, err);
	if (r < 0)
		log_msg(LOG_LEVEL_INFO, "machine", "%s", err ? err->msg : "translated code is made anew");
	parts_of(m, &parts, mmio);
	r = state_restore(&parts, &in, err);
	/* Shared folders change while a guest runs too; but a template can as well be made anew. */
	if (r > 1)
		r = missing(m, spec, err);
	else if (r > 0 && !snapshot->notes)
		r = err_set(err, -ESTALE, "files that the guest knows were replaced");
	else if (r > 0)
		r = 0;
	if (r == 0)
		r = generation_draw(m->mem);
	if (r < 0)
		return err_prefix(err, r, "snapshot %s", spec->restore);
	/* In a template only the agent runs, which reseeds before it does anything: a clone need not spend a millisecond on it. */
	if (snapshot->notes)
		generation_tell(m->vm);
	if (!snapshot->pages)	/* as of templates, which learn */
		hold_snapshot(m, snapshot->fd);
	m->snapshot.id = snapshot->id;
	return 0;
}

/* Boots are of no snapshot. */
static const struct snapshot_id no_snapshot;

void machine_expect_boot(struct machine *m, const struct machine_spec *spec)
{
	struct err err = { 0 };

	if (!m->engine->record || spec->gdb)
		return;
	if (spec->code && code_file_take_path(spec->code, &no_snapshot, m->vm, &m->boot.generation, &err) < 0)
		log_msg(LOG_LEVEL_INFO, "machine", "%s", err.msg);
	m->engine->record(m->vm);
	m->boot.recorded = true;
}

static int write_code(struct machine *m, int fd, const struct snapshot_id *id, uint32_t generation, uint64_t *ret_bytes, struct err *err)
{
	if (m->engine->kept_bytes(m->vm) > (m->snapshot.memory ? CODE_MAX : CODE_OF_BOOT_MAX))
		return 0;
	return code_file_write(fd, id, generation, m->vm, ret_bytes, err);
}

/* In place of the snapshot's while there is none. */
static int keep_boot(struct machine *m, int fd, uint64_t *ret_bytes, struct err *err)
{
	int r;

	vm_pause(m->vm);
	m->engine->set_aside(m->vm, false);
	r = write_code(m, fd, &no_snapshot, m->boot.generation + 1, ret_bytes, err);
	m->engine->set_aside(m->vm, true);
	vm_resume(m->vm);
	m->boot.recorded = false;	/* once */
	return r;
}

void machine_forget(struct machine *m)
{
	if (!m->engine->forget)
		return;
	vm_pause(m->vm);
	m->engine->forget(m->vm);
	vm_resume(m->vm);
}

/* What wakes an idle guest, counted; 0 where the engine does not. */
static uint64_t interrupts(struct machine *m)
{
	struct engine_counter counter[32];
	unsigned n = m->engine->counters ? m->engine->counters(m->vm, counter, ARRAY_SIZE(counter)) : 0;

	for (unsigned i = 0; i < n; i++)
		if (strcmp(counter[i].name, "interrupts") == 0)
			return counter[i].value;
	return 0;
}

/* While they are paused. */
static bool processors_wait(struct machine *m)
{
	struct vcpu_state state;
	bool wait = true;

	for (unsigned i = 0; i < m->vm->nvcpus && wait; i++)
		wait = m->engine->get_state(&m->vm->vcpu[i], &state, NULL) == 0 && state.mp_state != MP_RUNNABLE;
	return wait;
}

bool machine_is_idle(struct machine *m)
{
	uint64_t now = interrupts(m);
	bool idle = now == m->interrupts && (!m->vsock || virtio_vsock_quiet(m->vsock));

	m->interrupts = now;
	vm_pause(m->vm);
	idle = idle && processors_wait(m);
	vm_resume(m->vm);
	return idle;
}

int64_t machine_skip_time(struct machine *m, uint64_t most)
{
	int64_t skipped;

	if (!m->engine->skip_time)
		return 0;
	vm_pause(m->vm);
	skipped = processors_wait(m) ? m->engine->skip_time(m->vm, most) : -EAGAIN;
	vm_resume(m->vm);
	return skipped;
}

static void stop_all(struct machine *m, struct virtio_mmio *const mmio[DEVICES_MAX])
{
	vm_pause(m->vm);
	for (unsigned i = 0; i < m->nslots; i++)
		virtio_mmio_pause(mmio[i]);
}

static void resume_all(struct machine *m, struct virtio_mmio *const mmio[DEVICES_MAX])
{
	for (unsigned i = 0; i < m->nslots; i++)
		virtio_mmio_resume(mmio[i]);
	vm_resume(m->vm);
}

int machine_save(struct machine *m, int fd, struct err *err)
{
	struct virtio_mmio *mmio[DEVICES_MAX];
	struct state_parts parts;
	struct blob state = { 0 };
	int r;

	parts_of(m, &parts, mmio);
	stop_all(m, mmio);
	r = state_save(&parts, &state, err);
	if (r == 0)
		r = snapshot_write(fd, &state, m->vm, &m->snapshot.id, err);
	resume_all(m, mmio);
	blob_finish(&state);
	m->snapshot.generation = 0;
	if (r == 0) {
		hold_snapshot(m, fd);
		machine_forget_reads(m);
	}
	(void)close(fd);
	return r;
}

/* Pages that the guest has written since they were sent; it goes on. */
static int take_dirty(struct machine *m, uint64_t *bitmap, struct err *err)
{
	int r;

	vm_pause(m->vm);
	r = m->engine->dirty_log_get(m->vm, bitmap, err);
	vm_resume(m->vm);
	return r;
}

static uint64_t count_bits(const uint64_t *bitmap, uint64_t words)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < words; i++)
		n += (uint64_t)__builtin_popcountll(bitmap[i]);
	return n;
}

/* Sends memory while the guest runs, until it has written little since; that is left in @bitmap. */
static int send_running(struct machine *m, int fd, uint64_t *bitmap, struct err *err)
{
	uint64_t words = (m->mem->size / MEM_PAGE + 63) / 64;
	int r = snapshot_send_memory(fd, m->vm, NULL, err);

	for (unsigned i = 0; i < ROUNDS_MAX && r == 0; i++) {
		r = take_dirty(m, bitmap, err);
		if (r < 0 || count_bits(bitmap, words) < FEW_PAGES)
			break;
		r = snapshot_send_memory(fd, m->vm, bitmap, err);
		memset(bitmap, 0, words * sizeof(*bitmap));
	}
	return r;
}

int machine_watch(struct machine *m, unsigned index, int map, struct machine_disk *ret_disk, struct err *err)
{
	struct virtio_device *dev = index < SPEC_DISKS_MAX ? m->disk[index].dev : NULL;
	uint64_t len = dev ? block_watch_bytes(virtio_blk_size(dev)) : 0;
	void *at = MAP_FAILED;
	int r = dev && !m->disk[index].map ? 0 : -EINVAL;

	if (r == 0 && len > CONTROL_WATCH_MAX)
		r = -EFBIG;
	if (r == 0)
		at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);
	if (r == 0 && at == MAP_FAILED)
		r = -errno;
	if (r == 0)
		r = virtio_blk_watch(dev, at, &ret_disk->fd, &ret_disk->at, &ret_disk->size);
	(void)close(map);
	if (r < 0) {
		if (at != MAP_FAILED)
			(void)munmap(at, len);
		return err_set(err, r, "disk %u cannot be saved: %s", index + 1, strerror(-r));
	}
	m->disk[index].map = at;
	m->disk[index].map_len = len;
	return 0;
}

void machine_watch_none(struct machine *m)
{
	for (unsigned i = 0; i < SPEC_DISKS_MAX; i++) {
		if (!m->disk[i].map)
			continue;
		(void)virtio_blk_watch(m->disk[i].dev, NULL, NULL, NULL, NULL);
		(void)munmap(m->disk[i].map, m->disk[i].map_len);
		m->disk[i].map = NULL;
	}
}

/* The file is complete, or is not wanted any more. */
static void end_saving(struct machine *m)
{
	free(m->saving.bitmap);
	m->saving.bitmap = NULL;
	if (m->saving.fd >= 0)
		(void)close(m->saving.fd);
	m->saving.fd = -1;
	machine_watch_none(m);
}

static int log_writes(struct machine *m, bool on, struct err *err)
{
	struct virtio_mmio *mmio[DEVICES_MAX];
	struct state_parts parts;
	int r;

	parts_of(m, &parts, mmio);
	stop_all(m, mmio);
	r = m->engine->dirty_log_set(m->vm, on, err);
	resume_all(m, mmio);
	return r;
}

int machine_checkpoint(struct machine *m, int fd, const struct snapshot_id *id, struct err *err)
{
	int r;

	if (m->stands || m->saving.bitmap) {
		(void)close(fd);
		return err_set(err, -EBUSY, "the guest is being saved already");
	}
	generation_tell(m->vm);	/* it has not changed, and Linux looks; what it takes for that, a copy has then translated */
	m->saving.fd = fd;
	m->saving.id = *id;
	m->saving.bitmap = calloc((m->mem->size / MEM_PAGE + 63) / 64, sizeof(*m->saving.bitmap));
	r = m->saving.bitmap ? log_writes(m, true, err) : err_set(err, -ENOMEM, "out of host memory");
	if (r == 0)
		r = snapshot_send_start(fd, m->vm, err);
	if (r == 0)
		r = send_running(m, fd, m->saving.bitmap, err);
	if (r < 0) {
		(void)log_writes(m, false, NULL);
		end_saving(m);
	}
	return r;
}

int machine_stand(struct machine *m, struct err *err)
{
	struct virtio_mmio *mmio[DEVICES_MAX];
	struct state_parts parts;
	struct blob state = { 0 };
	int r;

	if (!m->saving.bitmap)
		return err_set(err, -EINVAL, "the guest is not being saved");
	parts_of(m, &parts, mmio);
	stop_all(m, mmio);
	r = m->engine->dirty_log_get(m->vm, m->saving.bitmap, err);
	if (r == 0)
		r = snapshot_send_memory(m->saving.fd, m->vm, m->saving.bitmap, err);
	(void)m->engine->dirty_log_set(m->vm, false, NULL);
	if (r == 0)
		r = state_save(&parts, &state, err);
	if (r == 0)
		r = snapshot_send_end(m->saving.fd, &state, err);
	blob_finish(&state);
	end_saving(m);
	if (r < 0)
		resume_all(m, mmio);
	m->stands = r == 0;
	return r;
}

void machine_go_on(struct machine *m)
{
	struct virtio_mmio *mmio[DEVICES_MAX];
	struct state_parts parts;

	if (m->saving.bitmap)
		(void)log_writes(m, false, NULL);
	end_saving(m);
	if (!m->stands)
		return;
	parts_of(m, &parts, mmio);
	resume_all(m, mmio);
	m->stands = false;
}

/* That was saved, or that it came from; else what is kept is of its boot. */
static bool is_of_snapshot(const struct machine *m)
{
	return m->snapshot.memory || m->snapshot.let_go;
}

bool machine_learns(const struct machine *m)
{
	if (!is_of_snapshot(m))
		return m->boot.recorded && m->boot.generation < GENERATIONS_MAX;
	return m->engine->learned && m->snapshot.generation < GENERATIONS_MAX;
}

/* A file that has been made anew often has what is common. */
static unsigned worth(const struct machine *m, unsigned least)
{
	return is_of_snapshot(m) ? least << m->snapshot.generation / GENERATIONS_EAGER : least;
}

/* Translations that are worth writing all of what there is, while no vCPU runs. */
static uint64_t worth_all(const struct machine *m)
{
	uint64_t bytes = m->engine->kept_bytes(m->vm);

	return bytes > CODE_LARGE ? (bytes - CODE_LARGE) / CODE_A_BLOCK : 0;
}

bool machine_halt(struct machine *m, unsigned least)
{
	if (!machine_learns(m) || m->engine->learned(m->vm, NULL) < worth(m, least))
		return false;
	vm_pause(m->vm);	/* for good: machine_keep()'s own pause is another one */
	return true;
}

int machine_keep(struct machine *m, int fd, unsigned least, uint64_t *ret_bytes, struct err *err)
{
	unsigned learned;
	int r = 0;

	*ret_bytes = 0;
	if (m->stands)	/* just saved: there is nothing to compare with */
		return code_file_write(fd, &m->saving.id, 1, m->vm, ret_bytes, err);
	least = worth(m, least);
	if (!machine_learns(m) || m->engine->learned(m->vm, NULL) < least)
		return 0;
	if (m->snapshot.let_go)
		return 0;
	if (!m->snapshot.memory)
		return keep_boot(m, fd, ret_bytes, err);
	vm_pause(m->vm);
	learned = m->engine->learned(m->vm, m->snapshot.memory);
	if (learned >= least && learned >= worth_all(m))
		r = write_code(m, fd, &m->snapshot.id, m->snapshot.generation + 1, ret_bytes, err);
	vm_resume(m->vm);
	m->snapshot.generation += *ret_bytes != 0;
	machine_forget_snapshot(m);
	m->snapshot.let_go = true;
	return r;
}

void machine_forget_snapshot(struct machine *m)
{
	if (m->snapshot.memory)
		(void)munmap((void *)(uintptr_t)m->snapshot.memory, m->mem->size);
	m->snapshot.memory = NULL;
}

/*
 * A guest goes on on the engine that it ran on, if nobody says otherwise.  For a template that one was tried once; a snapshot
 * may be from another host.  The translator looks when the VM is made whether it can, which is quicker.
 */
static int choose_engine(struct machine *m, const struct machine_spec *spec, const struct snapshot *s, struct err *err)
{
	bool automatic = !spec->engine || strcmp(spec->engine, "auto") == 0;

	m->engine = engine_named(s->engine);
	if (m->engine && (automatic || strcmp(spec->engine, m->engine->name) == 0) && (!s->sums || m->engine == &dbt_engine || m->engine->probe(NULL) == 0))
		return 0;
	return engine_choose(spec->engine, &m->engine, err);
}

int machine_open_snapshot(struct machine *m, const struct machine_spec *spec, struct snapshot *ret_snapshot, struct err *err)
{
	int r = snapshot_open(spec->restore, ret_snapshot, err);

	if (r == 0)
		r = snapshot_open_bases(ret_snapshot, err);
	if (r < 0)
		return r;
	if (ret_snapshot->memory != spec->memory)
		return err_set(err, -EINVAL, "snapshot %s is of a VM with %llu MiB of memory, and this one has %llu", spec->restore,
			       (unsigned long long)(ret_snapshot->memory >> 20), (unsigned long long)(spec->memory >> 20));
	return choose_engine(m, spec, ret_snapshot, err);
}
