/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs one test guest: run ENGINE[,OTHER|,again] GUEST.elf [CPUS [EXPECTED [any|real [MS]]]]
 *
 * With "again" it boots twice, the second time with what the engine kept of the first boot, and must do the same.
 * With two engines each save takes the guest from one to the other; with MS it is also saved every so many
 * milliseconds, whatever it does, unless it uses doorbells.
 *
 * Prints what the guest prints and how it ended.  With a file of expected output,
 * compares instead, and prints only what differs.  Exit status: the guest's, 77
 * when the engine does not work here, 3 when the machine failed.  A "real" guest
 * is skipped unless the engine's probe succeeds.
 *
 * Guests drive the host through the test device of guest.h; what needs a paused
 * machine is done by this program's main thread.
 */
#include "base/checked.h"
#include "engine/dbt/engine_dbt.h"
#include "engine/kvm/kvm.h"
#include "machine/snapshot.h"
#include "machine/snapshot_memory.h"
#include "machine/state.h"
#include "os/blob.h"
#include "os/err.h"
#include "vmm/acpi.h"
#include "vmm/boot.h"
#include "vmm/load.h"
#include "vmm/platform.h"
#include "vmm/serial.h"
#include "vmm/vm.h"

#include "tests/guest/guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY (64ull << 20)	/* bytes */
#define TIMEOUT_S 60
#define EXIT_SKIP 77
#define EXIT_MACHINE 3
#define MATCH_VALUE 7
#define MOVES_MAX 100u

struct runner {
	const struct engine_ops *engine, *other;	/* the same when there is one */
	struct mem *mem;
	struct vm *vm;
	struct platform *platform;
	struct serial *serial;
	int kept;	/* file with what the first boot left for the second; -1: none */
	off_t kept_bytes;
	long every_ms;	/* to be saved; 0: only when the guest says so */
	unsigned moves;	/* made because of that */
	int doorbell;	/* eventfd */
	pthread_t doorbell_thread;

	pthread_mutex_t lock;	/* guards all below */
	pthread_cond_t changed;
	uint64_t scratch, msi_addr, command, result, misses;
	bool ended;
	struct vm_end end;
	uint32_t status;
	char out[65536];
	size_t nout;
};

static const struct engine_ops *const engines[] = { &kvm_engine, &dbt_engine };

static void text(void *ctx, uint8_t byte)
{
	struct runner *r = ctx;

	pthread_mutex_lock(&r->lock);
	if (r->nout < sizeof(r->out))
		r->out[r->nout++] = (char)byte;
	pthread_mutex_unlock(&r->lock);
}

static void guest_exited(void *ctx, uint32_t status)
{
	struct runner *r = ctx;

	pthread_mutex_lock(&r->lock);
	r->status = status;
	pthread_mutex_unlock(&r->lock);
}

static void machine_ended(void *ctx, const struct vm_end *end)
{
	struct runner *r = ctx;

	pthread_mutex_lock(&r->lock);
	r->ended = true;
	r->end = *end;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

/* --- The test device --- */

static uint64_t dev_read(void *dev, uint64_t off, unsigned size)
{
	struct runner *r = dev;
	uint64_t v = 0;

	pthread_mutex_lock(&r->lock);
	if (off < 8 && off + size <= 8)
		memcpy(&v, (const char *)&r->scratch + off, size);
	else if (off == DEV_COMMAND - DEV_BASE)
		v = r->command;
	else if (off == DEV_RESULT - DEV_BASE)
		v = r->result;
	else if (off == DEV_MATCH_MISSES - DEV_BASE)
		v = r->misses;
	pthread_mutex_unlock(&r->lock);
	return v;
}

static void dev_write(void *dev, uint64_t off, unsigned size, uint64_t value)
{
	struct runner *r = dev;

	pthread_mutex_lock(&r->lock);
	if (off < 8 && off + size <= 8) {
		memcpy((char *)&r->scratch + off, &value, size);
	} else if (off == DEV_PULSE - DEV_BASE) {
		vm_irq_pulse(r->vm, (unsigned)value);
	} else if (off == DEV_RAISE - DEV_BASE) {
		vm_irq_set(r->vm, (unsigned)value, true);
	} else if (off == DEV_LOWER - DEV_BASE) {
		vm_irq_set(r->vm, (unsigned)value, false);
	} else if (off == DEV_MSI_ADDR - DEV_BASE) {
		r->msi_addr = value;
	} else if (off == DEV_MSI_DATA - DEV_BASE) {
		r->engine->msi_send(r->vm, r->msi_addr, (uint32_t)value);
	} else if (off == DEV_COMMAND - DEV_BASE) {
		r->command = value;
		pthread_cond_broadcast(&r->changed);
	} else if (off == DEV_DOORBELL_MATCH - DEV_BASE) {
		r->misses++;
	}
	pthread_mutex_unlock(&r->lock);
}

static const struct bus_ops dev_ops = { dev_read, dev_write };

static void *doorbell_main(void *arg)
{
	struct runner *r = arg;
	uint64_t count;

	while (read(r->doorbell, &count, sizeof(count)) == (ssize_t)sizeof(count) &&
	       count < 1ull << 32)
		vm_irq_pulse(r->vm, DOORBELL_GSI);
	return NULL;
}

/* --- Machines --- */

static int add_doorbell(struct vm *vm, uint64_t addr, bool match, int fd, struct err *err)
{
	const struct bus_doorbell bell = { .addr = addr, .size = 4, .match = match,
					   .value = MATCH_VALUE, .fd = fd };
	int res = bus_add_doorbell(&vm->mmio, &bell, err);

	if (res == 0 && vm->engine->doorbell_add)
		res = vm->engine->doorbell_add(vm, true, vm->mmio.ndoorbells - 1, err);
	return res;
}

static int make_machine(struct runner *r, unsigned ncpus, const struct cpuid_table *cpuid, struct err *err)
{
	const struct platform_debug debug = { text, guest_exited, r };
	int res = vm_create_as(r->engine, r->mem, ncpus, cpuid, &r->vm, err);

	if (res < 0)
		return res;
	r->vm->ended = machine_ended;
	r->vm->ended_ctx = r;
	res = platform_create(r->vm, &debug, &r->platform, err);
	if (res == 0)
		res = serial_create(r->vm, SERIAL_COM1_BASE, SERIAL_COM1_IRQ, NULL, NULL, &r->serial, err);
	if (res == 0)
		res = bus_add(&r->vm->mmio, &(struct bus_range){ DEV_BASE, 0x1000, &dev_ops, r,
								"test device" }, err);
	if (res == 0)
		res = add_doorbell(r->vm, DEV_DOORBELL, false, r->doorbell, err);
	if (res == 0)
		res = add_doorbell(r->vm, DEV_DOORBELL_MATCH, true, r->doorbell, err);
	return res;
}

/* What a guest may see that is to move between engines: what KVM offers here, which the translator does too. */
static int common_cpuid(struct runner *r, unsigned ncpus, struct cpuid_table *ret, struct err *err)
{
	struct vm *vm;
	int res = vm_create(&kvm_engine, r->mem, ncpus, &vm, err);

	if (res == 0) {
		*ret = vm->cpuid;
		vm_destroy(vm);
	}
	return res;
}

static int boot(struct runner *r, const char *path, struct err *err)
{
	struct boot_spec spec = { 0 };
	struct vcpu_state state;
	struct kernel kernel;
	int res = kernel_open(path, NULL, &kernel, err);

	if (res < 0)
		return res;
	spec.kernel = &kernel;
	res = acpi_build(r->mem, &(struct acpi_spec){ .nvcpus = r->vm->nvcpus }, &spec.rsdp, err);
	if (res == 0)
		res = boot_load(r->mem, &spec, &state, err);
	if (res == 0)
		res = r->engine->set_state(&r->vm->vcpu[0], &state, err);
	kernel_close(&kernel);
	return res;
}

/* --- Commands --- */

#define HOUR_NS 3600000000000ull
#define COUNT_FROM (16ull << 20)
#define HOST_WRITE_AT (17ull << 20)

static int count_dirty(struct runner *r, uint64_t *ret, struct err *err)
{
	uint64_t bitmap[MEMORY / 4096 / 64] = { 0 };
	int res = r->engine->dirty_log_get(r->vm, bitmap, err);

	*ret = 0;
	for (size_t i = COUNT_FROM / 4096 / 64; i < ARRAY_SIZE(bitmap); i++)
		*ret += (uint64_t)__builtin_popcountll(bitmap[i]);
	return res;
}

static struct state_parts parts_of(const struct runner *r)
{
	return (struct state_parts){ .vm = r->vm, .platform = r->platform, .serial = r->serial };
}

/* 0 and a file with the machine. */
static int save(struct runner *r, struct err *err)
{
	const struct state_parts parts = parts_of(r);
	struct blob state = { 0 };
	struct snapshot_id id;
	int fd = memfd_create("snapshot", MFD_CLOEXEC), res;

	res = fd < 0 || ftruncate(fd, (off_t)snapshot_size(MEMORY)) < 0 ? -errno : state_save(&parts, &state, err);
	if (res == 0)
		res = snapshot_write(fd, &state, r->vm, &id, err);
	blob_finish(&state);
	return res < 0 ? res : fd;
}

static void destroy_machine(struct runner *r)
{
	vm_destroy(r->vm);
	serial_destroy(r->serial);
	platform_destroy(r->platform);
	mem_destroy(r->mem);
}

/* Another machine, of what is in the file. */
static int restore(struct runner *r, const struct snapshot *s, unsigned ncpus, struct err *err)
{
	struct blob_reader in = { .at = s->state, .left = s->state_len };
	struct cpuid_table cpuid;
	struct state_parts parts;
	int res = state_cpuid(s->state, s->state_len, &cpuid);

	if (res == 0)
		res = snapshot_memory(s, &r->mem, err);
	if (res == 0)
		res = make_machine(r, ncpus, &cpuid, err);
	parts = parts_of(r);
	return res == 0 ? state_restore(&parts, &in, err) : res;
}

/* Throws the machine away and goes on in another one from a file, on the other engine. */
static int save_restore(struct runner *r, struct err *err)
{
	const struct engine_ops *engine = r->engine;
	unsigned ncpus = r->vm->nvcpus;
	int fd = save(r, err), res = fd < 0 ? fd : 0;
	struct snapshot s = { .fd = -1 };
	char path[40];

	if (res < 0)
		return res;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	res = snapshot_open(path, &s, err);
	destroy_machine(r);
	r->engine = r->other;
	r->other = engine;
	if (res == 0)
		res = restore(r, &s, ncpus, err);
	snapshot_close(&s);
	(void)close(fd);
	return res;
}

static int do_command(struct runner *r, enum dev_command command, uint64_t *ret, struct err *err)
{
	bool new_vm = command == CMD_SAVE_RESTORE;
	int res = -EINVAL;

	vm_pause(r->vm);
	switch (command) {
	case CMD_DIRTY_ON:
		res = r->engine->dirty_log_set(r->vm, true, err);
		break;
	case CMD_DIRTY_OFF:
		res = r->engine->dirty_log_set(r->vm, false, err);
		break;
	case CMD_DIRTY_COUNT:
		res = count_dirty(r, ret, err);
		break;
	case CMD_HOST_WRITE:
		res = mem_write(r->mem, HOST_WRITE_AT, "host", 4);
		break;
	case CMD_SAVE_RESTORE:
		res = save_restore(r, err);
		break;
	case CMD_SKIP_TIME:
		*ret = r->engine->skip_time ? r->engine->skip_time(r->vm, HOUR_NS) : 0;
		res = 0;
		break;
	case CMD_NONE:
		break;
	}
	if (res == 0 && new_vm)
		return vm_start(r->vm, err);
	vm_resume(r->vm);
	return res;
}

/* To the other engine, in the middle of whatever it does. */
static int move(struct runner *r, struct err *err)
{
	int res;

	vm_pause(r->vm);
	res = save_restore(r, err);
	if (res == -ESHUTDOWN) {
		*err = (struct err){ 0 };
		vm_resume(r->vm);
		return 0;
	}
	r->moves++;
	return res < 0 ? res : vm_start(r->vm, err);
}

static struct timespec in_ms(long ms)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_REALTIME, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += ms % 1000 * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_nsec -= 1000000000;
		t.tv_sec++;
	}
	return t;
}

/* Serves commands until the machine ends.  False when it hangs. */
static bool serve(struct runner *r, struct err *err)
{
	struct timespec end = in_ms(TIMEOUT_S * 1000), until;
	int timed_out = 0;
	bool ended;

	pthread_mutex_lock(&r->lock);
	while (!r->ended && !timed_out) {
		enum dev_command command = (enum dev_command)r->command;
		uint64_t result = 0;

		if (command == CMD_NONE) {
			bool moves = r->every_ms && r->moves < MOVES_MAX;

			until = moves ? in_ms(r->every_ms) : end;
			timed_out = pthread_cond_timedwait(&r->changed, &r->lock, &until);
			if (timed_out && moves) {
				pthread_mutex_unlock(&r->lock);
				timed_out = move(r, err) < 0;
				pthread_mutex_lock(&r->lock);
			}
			continue;
		}
		pthread_mutex_unlock(&r->lock);
		if (do_command(r, command, &result, err) < 0)
			result = UINT64_MAX;
		pthread_mutex_lock(&r->lock);
		r->result = result;
		r->command = CMD_NONE;
	}
	ended = r->ended;
	pthread_mutex_unlock(&r->lock);
	return ended;
}

static void print_end(struct runner *r, bool ended)
{
	static const char *const names[] = { "kicked", "triple fault", "reset", "power-off",
					     "error" };

	r->nout += (size_t)snprintf(r->out + r->nout, sizeof(r->out) - r->nout, "end: %s",
				    ended ? names[r->end.exit] : "timeout");
	if (r->end.exit == VCPU_EXIT_ERROR)
		r->nout += (size_t)snprintf(r->out + r->nout, sizeof(r->out) - r->nout, ": %s",
					    r->end.reason);
	r->nout += (size_t)snprintf(r->out + r->nout, sizeof(r->out) - r->nout, "\n");
}

static int compare(const struct runner *r, const char *path)
{
	static char want[sizeof(r->out)];
	FILE *f = fopen(path, "r");
	size_t n = f ? fread(want, 1, sizeof(want), f) : 0;

	if (f)
		(void)fclose(f);
	if (f && n == r->nout && memcmp(want, r->out, n) == 0)
		return 0;
	(void)fprintf(stderr, "output differs from %s:\n%.*s", path, (int)r->nout, r->out);
	return 1;
}

static int finish(struct runner *r, bool ended, const char *expected)
{
	print_end(r, ended);
	if (expected)
		return compare(r, expected);
	(void)fwrite(r->out, 1, r->nout, stdout);
	if (!ended || r->end.exit == VCPU_EXIT_ERROR)
		return EXIT_MACHINE;
	return (int)(r->status & 0xff);
}

/* What an engine offers to boots: taken, if there is something, and noted. */
static int expect_boot(struct runner *r, struct err *err)
{
	int res = 0;

	for (unsigned i = 0; i < 2 && res == 0 && r->kept_bytes; i++)	/* the second time it has its place itself */
		res = r->engine->take_kept(r->vm, r->kept, 0, (uint64_t)r->kept_bytes, err);
	if (r->kept >= 0)
		r->engine->record(r->vm);
	return res;
}

/* Of a machine that has ended. */
static int keep_boot(struct runner *r, struct err *err)
{
	uint8_t *at = MAP_FAILED;

	r->engine->set_aside(r->vm, false);
	r->kept_bytes = (off_t)r->engine->kept_bytes(r->vm);
	if (r->kept_bytes && ftruncate(r->kept, r->kept_bytes) == 0)
		at = mmap(NULL, (size_t)r->kept_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->kept, 0);
	if (at == MAP_FAILED)
		return err_set(err, -EIO, "nothing was kept of the boot");
	r->engine->keep(r->vm, at);
	(void)munmap(at, (size_t)r->kept_bytes);
	return 0;
}

static uint64_t counter(struct runner *r, const char *name)
{
	struct engine_counter all[32];
	unsigned n = r->engine->counters(r->vm, all, ARRAY_SIZE(all));

	while (n-- > 0)
		if (strcmp(all[n].name, name) == 0)
			return all[n].value;
	return 0;
}

static int run(struct runner *r, const char *path, unsigned ncpus, const char *expected,
	       struct err *err)
{
	const uint64_t stop = 1ull << 32;
	bool ended, moves = r->other != r->engine;
	struct cpuid_table common;
	int status;

	if (mem_create(MEMORY, &r->mem, err) < 0 || (moves && common_cpuid(r, ncpus, &common, err) < 0) ||
	    make_machine(r, ncpus, moves ? &common : NULL, err) < 0 || expect_boot(r, err) < 0 || boot(r, path, err) < 0)
		return EXIT_MACHINE;
	if (pthread_create(&r->doorbell_thread, NULL, doorbell_main, r) ||
	    vm_start(r->vm, err) < 0)
		return EXIT_MACHINE;
	ended = serve(r, err);
	vm_stop(r->vm);
	(void)!write(r->doorbell, &stop, sizeof(stop));
	pthread_join(r->doorbell_thread, NULL);
	status = finish(r, ended, expected);
	if (status == 0 && r->kept >= 0 && r->kept_bytes && !counter(r, "woken"))
		status = err_set(err, EXIT_MACHINE, "nothing of the first boot was used");
	else if (status == 0 && r->kept >= 0 && !r->kept_bytes)
		status = keep_boot(r, err) < 0 ? EXIT_MACHINE : 0;
	destroy_machine(r);
	return status;
}

/* What the second boot begins with is as at the first. */
static int run_again(struct runner *r, const char *path, unsigned ncpus, const char *expected, struct err *err)
{
	r->ended = false;
	r->scratch = r->msi_addr = r->command = r->result = r->misses = r->status = 0;
	r->nout = 0;
	return run(r, path, ncpus, expected, err);
}

static const struct engine_ops *find_engine(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(engines); i++)
		if (strcmp(engines[i]->name, name) == 0)
			return engines[i];
	return NULL;
}

int main(int argc, char **argv)
{
	static struct runner r = { .lock = PTHREAD_MUTEX_INITIALIZER,
				   .changed = PTHREAD_COND_INITIALIZER };
	struct err err = { 0 };
	const char *other;
	bool again;
	int status;

	if (argc < 3) {
		(void)fprintf(stderr, "usage: run ENGINE GUEST.elf [CPUS [EXPECTED [any|real]]]\n");
		return 2;
	}
	r.engine = find_engine(strtok(argv[1], ","));
	other = strtok(NULL, ",");
	again = other && strcmp(other, "again") == 0;
	r.other = other && !again ? find_engine(other) : r.engine;
	if (!r.engine || !r.other) {
		(void)fprintf(stderr, "run: no engine named %s\n", argv[1]);
		return 2;
	}
	if ((r.engine == &kvm_engine || r.other == &kvm_engine) && access("/dev/kvm", R_OK | W_OK) < 0) {
		(void)fprintf(stderr, "skipped: no usable /dev/kvm\n");
		return EXIT_SKIP;
	}
	if (argc > 5 && strcmp(argv[5], "real") == 0 && r.engine->probe(&err) < 0) {
		(void)fprintf(stderr, "skipped: %s\n", err.msg);
		return EXIT_SKIP;
	}
	r.every_ms = argc > 6 ? atol(argv[6]) : 0;
	r.doorbell = eventfd(0, EFD_CLOEXEC);
	r.kept = again ? memfd_create("kept", MFD_CLOEXEC) : -1;
	status = run(&r, argv[2], argc > 3 ? (unsigned)atoi(argv[3]) : 1, argc > 4 ? argv[4] : NULL,
		     &err);
	if (status == 0 && again)
		status = run_again(&r, argv[2], argc > 3 ? (unsigned)atoi(argv[3]) : 1, argc > 4 ? argv[4] : NULL, &err);
	if (err.code)
		(void)fprintf(stderr, "run: %s\n", err.msg);
	if (r.every_ms)
		(void)fprintf(stderr, "saved and restored %u times\n", r.moves);
	(void)close(r.doorbell);
	return status;
}
