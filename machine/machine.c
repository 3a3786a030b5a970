/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/inside.h"

#include "base/checked.h"

#include "abi/agent.h"
#include "block/block.h"
#include "link/broker.h"
#include "link/link.h"
#include "link/port.h"
#include "machine/counts.h"
#include "machine/debugger.h"
#include "machine/disk.h"
#include "machine/engines.h"
#include "machine/load.h"
#include "machine/network.h"
#include "machine/snapshot.h"
#include "machine/snapshot_memory.h"
#include "os/err.h"
#include "os/file.h"
#include "os/jail.h"
#include "os/log.h"
#include "os/loop.h"
#include "os/prompt.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/fs/fs.h"
#include "virtio/mmio.h"
#include "virtio/net.h"
#include "virtio/rng.h"
#include "virtio/vsock.h"
#include "vmm/acpi.h"
#include "vmm/boot.h"
#include "vmm/platform.h"
#include "vmm/serial.h"
#include "vmm/tsc.h"
#include "vmm/vm.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_GSI 5u
#define GUEST_CID 3u
#define POOL_THREADS 2u	/* of a file system, as virtio_fs_create() has it */

/* --------------------------------------------------------------- callbacks */

static void run_ended(void *ctx)
{
	struct machine *m = ctx;

	if (m->debugger)
		debugger_ended(m->debugger);
	m->events.ended(m->events.ctx, &m->end);
}

/* On a vCPU thread. */
static void vm_ended(void *ctx, const struct vm_end *end)
{
	struct machine *m = ctx;

	m->end = *end;
	(void)loop_post(m->loop, run_ended, m);
}

struct console_bytes {
	struct machine *machine;
	size_t len;
	uint8_t data[];
};

static void run_console(void *ctx)
{
	struct console_bytes *c = ctx;

	c->machine->events.console(c->machine->events.ctx, c->data, c->len);
	free(c);
}

/* On a vCPU thread, under the port's lock. */
static void serial_output(void *ctx, const uint8_t *data, size_t len)
{
	struct machine *m = ctx;
	struct console_bytes *c = m->events.console ? malloc(sizeof(*c) + len) : NULL;

	if (!c)
		return;
	c->machine = m;
	c->len = len;
	memcpy(c->data, data, len);
	if (loop_post(m->loop, run_console, c) < 0)
		free(c);
}

static void device_irq(void *ctx)
{
	struct slot *slot = ctx;

	vm_irq_pulse(slot->machine->vm, slot->gsi);
}

/* The guest's agent calls: gives it one end of a new stream and the owner the other. */
static int accept_ready(void *ctx, uint32_t guest_port)
{
	struct machine *m = ctx;
	int pair[2];

	if (!m->events.ready)
		return -ECONNREFUSED;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	m->events.ready(m->events.ctx, pair[1], &(struct machine_stream){ guest_port, AGENT_READY_PORT });
	return pair[0];
}

/* ----------------------------------------------------------------- devices */

static int add_device(struct machine *m, struct virtio_device *dev, struct err *err)
{
	struct bus_doorbell bell[VIRTIO_QUEUES_MAX];
	struct slot *slot = &m->slot[m->nslots];
	uint64_t base = BOOT_DEVICES + (uint64_t)m->nslots * 0x1000;
	struct bus_range range;
	unsigned n;
	int r;

	slot->machine = m;
	slot->dev = dev;	/* owned from here on */
	slot->gsi = FIRST_GSI + m->nslots;
	m->nslots++;
	r = virtio_mmio_create(dev, m->mem, base, device_irq, slot, &slot->mmio, err);
	if (r < 0)
		return r;
	range = virtio_mmio_range(slot->mmio);
	r = bus_add(&m->vm->mmio, &range, err);
	if (r < 0)
		return r;
	n = virtio_mmio_doorbells(slot->mmio, bell);
	for (unsigned i = 0; i < n; i++) {
		r = bus_add_doorbell(&m->vm->mmio, &bell[i], err);
		if (r == 0 && m->engine->doorbell_add)
			r = m->engine->doorbell_add(m->vm, true, m->vm->mmio.ndoorbells - 1, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_share(struct machine *m, const struct spec_share *share, unsigned index, struct err *err)
{
	static const enum virtio_fs_cache caches[] = {
		[SPEC_CACHE_AUTO] = VIRTIO_FS_CACHE_AUTO,
		[SPEC_CACHE_ALWAYS] = VIRTIO_FS_CACHE_ALWAYS,
		[SPEC_CACHE_NONE] = VIRTIO_FS_CACHE_NONE,
	};
	struct virtio_fs_options opt = { .tag = share->tag, .path = share->path, .read_only = share->read_only,
					 .cache = caches[share->cache],
					 .detach = m->jail && m->jail->spaces & CLONE_NEWNS };
	struct virtio_device *dev;
	int r = virtio_fs_create(m->io.loop, &opt, &dev, err);

	if (r < 0)
		return err_prefix(err, r, "cannot share %s", share->path);
	m->share[index] = dev;
	return add_device(m, dev, err);
}

static int add_disk(struct machine *m, const struct spec_disk *disk, unsigned index, struct err *err)
{
	struct virtio_device *dev;
	struct block *blk = NULL;
	char serial[24];
	int r = disk_open(disk, &blk, err);

	if (r < 0)
		return err_prefix(err, r, "disk %s", disk->path);
	(void)snprintf(serial, sizeof(serial), "roux-disk%u", index);
	r = virtio_blk_create(m->io.loop, blk, serial, &dev, err);
	if (r < 0) {
		block_destroy(blk);
		return r;
	}
	m->disk[index].dev = dev;
	return add_device(m, dev, err);
}

static void run_network_lost(void *ctx)
{
	struct named *n = ctx;
	struct machine *m = n->machine;

	if (m->events.network_lost)
		m->events.network_lost(m->events.ctx, (unsigned)(n - m->named));
}

/* On the networks' thread. */
static void network_lost(void *ctx)
{
	struct named *n = ctx;

	(void)loop_post(n->machine->loop, run_network_lost, n);
}

/* On the networks' thread. */
static void run_renew_network(void *ctx)
{
	struct named *n = ctx;
	int fd = __atomic_exchange_n(&n->fd, -1, __ATOMIC_ACQ_REL);

	if (fd >= 0 && link_port_renew(n->link, fd) < 0)
		(void)close(fd);
}

void machine_renew_network(struct machine *m, unsigned index, int fd)
{
	struct named *n = index < SPEC_NETS_MAX ? &m->named[index] : NULL;

	if (n && n->link) {
		fd = __atomic_exchange_n(&n->fd, fd, __ATOMIC_ACQ_REL);
		(void)loop_post(m->net.loop, run_renew_network, n);
	}
	if (fd >= 0)
		(void)close(fd);
}

static int add_net(struct machine *m, const struct spec_net *net, struct link_counts *counts, struct named *named,
		   unsigned npairs, struct err *err)
{
	struct virtio_device *dev;
	struct link *link;
	int r = network_create(m->net.loop, net, broker_host(m->broker), &link, err);

	if (r < 0)
		return r;
	link_count_at(link, counts);
	r = virtio_net_create(m->net.loop, link, npairs, &dev, err);
	if (r < 0) {
		link_destroy(link);
		return r;
	}
	if (net->kind == SPEC_NET_NAMED) {
		named->link = link;
		link_port_on_lost(link, network_lost, named);
	}
	return add_device(m, dev, err);
}

static int add_devices(struct machine *m, const struct machine_spec *spec, struct err *err)
{
	struct virtio_device *dev;
	int r = virtio_rng_create(m->loop, &dev, err);

	if (r == 0)
		r = add_device(m, dev, err);
	if (r == 0 && spec->vsock) {
		r = virtio_vsock_create(m->loop, GUEST_CID, &m->vsock, err);
		if (r == 0)
			r = add_device(m, m->vsock, err);
		if (r == 0)
			r = virtio_vsock_listen(m->vsock, AGENT_READY_PORT, accept_ready, m);
	}
	for (unsigned i = 0; i < spec->nshares && r == 0; i++)
		r = add_share(m, &spec->share[i], i, err);
	for (unsigned i = 0; i < spec->ndisks && r == 0; i++)
		r = add_disk(m, &spec->disk[i], i, err);
	for (unsigned i = 0; i < spec->nnets && r == 0; i++)
		r = add_net(m, &spec->net[i], &m->counts->net[i], &m->named[i], spec->cpus, err);
	if (r == 0 && spec->balloon) {
		r = virtio_balloon_create(m->loop, spec->balloon_yield, &m->balloon, err);
		if (r == 0)
			r = add_device(m, m->balloon, err);
	}
	return r;
}

/* ---------------------------------------------------------------- life time */

static int vcpu_thread_starts(void *ctx)
{
	const struct machine *m = ctx;

	return confine_enter(&m->confine, m->confine.kvm ? CONFINE_KVM : CONFINE_DBT);
}

/* Memory comes as the guest touches it: one that could never have it all is a mistake to be told now. */
static int check_memory(const struct machine_spec *spec, struct err *err)
{
	uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	if (spec->memory > host)
		return err_set(err, -ENOMEM, "%llu MiB of memory are more than this host's %llu MiB",
			       (unsigned long long)(spec->memory >> 20), (unsigned long long)(host >> 20));
	return 0;
}

static int load_guest(struct machine *m, const struct machine_spec *spec, const char *cache_dir, struct err *err)
{
	struct acpi_device device[DEVICES_MAX];

	machine_expect_boot(m, spec);
	for (unsigned i = 0; i < m->nslots; i++)
		device[i] = (struct acpi_device){ .base = (uint32_t)(BOOT_DEVICES + i * 0x1000ull),
						  .size = VIRTIO_MMIO_WINDOW, .gsi = m->slot[i].gsi, .edge = true };
	return machine_load(m->vm, spec, device, m->nslots, cache_dir, err);
}

/* What networks need besides their links and devices. */
static int prepare_networks(struct machine *m, struct err *err)
{
	int r = worker_create(&m->net, err);

	if (r < 0)
		return r;
	r = broker_create(&m->broker);
	if (r == 0)
		r = counts_create(&m->counts, &m->counts_fd);
	return r < 0 ? err_set(err, r, "cannot prepare networks: %s", strerror(-r)) : 0;
}

/* What the threads will have to be allowed. */
static void describe_confinement(struct machine *m, const struct machine_spec *spec)
{
	struct confine *c = &m->confine;

	c->kvm = strcmp(m->engine->name, "kvm") == 0;
	c->debugger = m->debugger != NULL;
	c->folders = spec->nshares > 0;
	for (unsigned i = 0; i < spec->nshares; i++)
		c->files_writable |= !spec->share[i].read_only;
	for (unsigned i = 0; i < spec->ndisks; i++)
		c->files_writable |= !spec->disk[i].read_only;
	for (unsigned i = 0; i < spec->nnets; i++) {
		c->captures |= spec->net[i].pcap != NULL;
		/* Without a way out there is no use for any. */
		c->sockets |= spec->net[i].kind != SPEC_NET_TAP && !spec->net[i].internal;
	}
}

int machine_create(struct loop *loop, const struct machine_spec *spec, const char *cache_dir,
		   struct jail *jail, const struct machine_events *events, struct machine **ret_machine, struct err *err)
{
	struct snapshot snapshot = { .fd = -1 };
	char memo[PATH_MAX];
	struct machine *m;
	int r = machine_spec_check(spec, err);

	if (r == 0)
		r = check_memory(spec, err);
	if (r < 0)
		return r;
	m = calloc(1, sizeof(*m));
	if (!m)
		return err_set(err, -ENOMEM, "out of host memory");
	if (cache_dir && file_path(memo, NULL, cache_dir, "/tsc-khz", NULL) == 0)
		host_tsc_recall(memo);
	m->loop = loop;
	m->events = *events;
	m->jail = jail;
	m->counts_fd = m->saving.fd = -1;
	for (unsigned i = 0; i < SPEC_NETS_MAX; i++)
		m->named[i] = (struct named){ .machine = m, .fd = -1 };
	r = spec->restore ? machine_open_snapshot(m, spec, &snapshot, err) : engine_choose(spec->engine, &m->engine, err);
	if (r == 0)
		r = spec->restore ? snapshot_memory(&snapshot, &m->mem, err) :
			mem_create(spec->memory, &m->mem, err);
	if (r == 0 && spec->merge)
		r = mem_merge(m->mem, err);
	if (r == 0)
		r = spec->restore ? machine_make_vm(m, &snapshot, spec, err) : vm_create(m->engine, m->mem, spec->cpus, &m->vm, err);
	if (r == 0) {
		m->vm->ended = vm_ended;
		m->vm->ended_ctx = m;
		r = worker_create(&m->io, err);
	}
	if (r == 0 && spec->nnets)
		r = prepare_networks(m, err);
	if (r == 0)
		r = platform_create(m->vm, NULL, &m->platform, err);
	if (r == 0)
		r = serial_create(m->vm, SERIAL_COM1_BASE, SERIAL_COM1_IRQ, serial_output, m, &m->serial, err);
	if (r == 0)
		r = add_devices(m, spec, err);
	if (r == 0)
		r = spec->restore ? machine_restore(m, &snapshot, spec, err) : load_guest(m, spec, cache_dir, err);
	snapshot_close(&snapshot);
	if (r == 0 && spec->gdb)
		r = debugger_create(loop, m->vm, spec->gdb_port, spec->gdb_wait, &m->debugger, err);
	if (r == 0 && jail)
		describe_confinement(m, spec);
	if (r < 0) {
		machine_destroy(m);
		return r;
	}
	*ret_machine = m;
	return 0;
}

void machine_destroy(struct machine *m)
{
	if (!m)
		return;
	if (m->vm)
		vm_stop(m->vm);
	worker_stop(&m->io);
	worker_stop(&m->net);
	debugger_destroy(m->debugger);
	machine_watch_none(m);
	for (unsigned i = m->nslots; i-- > 0;) {
		virtio_mmio_destroy(m->slot[i].mmio);
		virtio_device_destroy(m->slot[i].dev);
	}
	worker_destroy(&m->io);
	worker_destroy(&m->net);
	broker_destroy(m->broker);
	for (unsigned i = 0; i < SPEC_NETS_MAX; i++)
		if (m->named[i].fd >= 0)
			(void)close(m->named[i].fd);
	counts_unmap(m->counts);
	if (m->counts_fd >= 0)
		(void)close(m->counts_fd);
	serial_destroy(m->serial);
	platform_destroy(m->platform);
	vm_destroy(m->vm);
	machine_forget_snapshot(m);
	free(m->saving.bitmap);
	if (m->saving.fd >= 0)
		(void)close(m->saving.fd);
	mem_destroy(m->mem);
	free(m);
}

static int close_jail(struct machine *m, struct err *err)
{
	struct jail_options opt = {
		.caps = confine_file_caps(&m->confine),
		.no_files = !m->confine.files_writable && !m->confine.captures,
		.keep_stderr = log_enabled(LOG_LEVEL_DEBUG),
		.nthreads = m->vm->nvcpus + m->nslots * POOL_THREADS + 3,
		.server = m->confine.sockets,
		.forbidden = m->events.forbidden,
	};
	int r;

	r = jail_enter(m->jail, &opt, err);
	if (r == 0 && opt.server)
		broker_attach(m->broker, m->jail->helper);
	return r;
}

/* No vCPU runs before the last thread is confined: this one. */
static int start_confined(struct machine *m, struct err *err)
{
	int r;

	vm_pause(m->vm);
	m->vm->thread_starts = vcpu_thread_starts;
	m->vm->thread_ctx = m;
	r = vm_start(m->vm, err);
	if (r < 0)
		return r;
	prompt_set(true);
	r = confine_enter(&m->confine, CONFINE_MAIN);
	if (r < 0)
		return err_set(err, r, "the jail of the main thread cannot be closed: %s", strerror(-r));
	vm_resume(m->vm);
	return 0;
}

int machine_start(struct machine *m, struct err *err)
{
	const struct confine *confine = m->jail ? &m->confine : NULL;
	int r = m->jail ? close_jail(m, err) : 0;

	if (r == 0)
		r = worker_start(&m->io, "io", confine, CONFINE_FILES, err);
	if (r == 0 && m->net.loop)
		r = worker_start(&m->net, "net", confine, CONFINE_NET, err);
	if (r == 0)
		r = m->jail ? start_confined(m, err) : vm_start(m->vm, err);
	return r;
}

bool machine_has_helper(const struct machine *m)
{
	return m->jail && m->jail->helper >= 0;
}

const char *machine_engine(const struct machine *m)
{
	return m->engine->name;
}

uint16_t machine_gdb_port(const struct machine *m)
{
	return m->debugger ? debugger_port(m->debugger) : 0;
}

int machine_take_counts_fd(struct machine *m)
{
	int fd = m->counts_fd;

	m->counts_fd = -1;
	return fd;
}

static unsigned balloon_counters(struct virtio_device *balloon, struct engine_counter *ret_counters)
{
	struct virtio_balloon_state s;

	virtio_balloon_get(balloon, &s);
	ret_counters[0] = (struct engine_counter){ "balloon", s.given };
	ret_counters[1] = (struct engine_counter){ "reported", s.reported };
	ret_counters[2] = (struct engine_counter){ "guest-total", s.total };
	ret_counters[3] = (struct engine_counter){ "guest-free", s.free };
	ret_counters[4] = (struct engine_counter){ "guest-avail", s.available };
	return 5;
}

void machine_counters(struct machine *m, char *text, size_t size)
{
	struct engine_counter counter[32 + 5];
	unsigned n = m->engine->counters ? m->engine->counters(m->vm, counter, 32) : 0;
	size_t at = 0;

	if (m->balloon)
		n += balloon_counters(m->balloon, counter + n);
	text[0] = '\0';
	for (unsigned i = 0; i < n && at < size; i++)
		at += (size_t)snprintf(text + at, size - at, "%s %llu\n", counter[i].name,
				       (unsigned long long)counter[i].value);
}

size_t machine_console_input(struct machine *m, const uint8_t *data, size_t len)
{
	return serial_input(m->serial, data, len);
}

struct connecting {
	machine_stream_fn done;
	void *ctx;
	int fd;
	struct machine_stream stream;
};

static void connected(void *ctx, int result)
{
	struct connecting *c = ctx;

	if (result < 0)
		(void)close(c->fd);
	c->done(c->ctx, result, result < 0 ? -1 : c->fd, &c->stream);
	free(c);
}

void machine_connect(struct machine *m, uint32_t port, machine_stream_fn done, void *ctx)
{
	struct connecting *c = malloc(sizeof(*c));
	int pair[2], r = -ENOMEM;

	if (!c || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		free(c);
		done(ctx, r, -1, &(struct machine_stream){ 0 });
		return;
	}
	*c = (struct connecting){ .done = done, .ctx = ctx, .fd = pair[1], .stream.guest_port = port };
	r = m->vsock ? virtio_vsock_connect(m->vsock, port, pair[0], connected, c, &c->stream.host_port) : -ENODEV;
	if (r < 0) {
		(void)close(pair[0]);
		connected(c, r);
	}
}

int machine_take_stream(struct machine *m, struct machine_stream *stream)
{
	int pair[2], r;

	if (!m->vsock)
		return -ENOENT;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	r = virtio_vsock_take(m->vsock, stream->guest_port, &stream->host_port, pair[0], pair[1]);
	if (r == 0)
		return pair[1];
	(void)close(pair[0]);
	(void)close(pair[1]);
	return r;
}

void machine_abandon_streams(struct machine *m)
{
	if (m->vsock)
		virtio_vsock_abandon(m->vsock);
}

int machine_set_memory(struct machine *m, uint64_t bytes, struct err *err)
{
	int r;

	if (bytes > m->mem->size)
		return err_set(err, -EINVAL, "it has had %llu MiB since its start and cannot have more before the next",
			       (unsigned long long)(m->mem->size >> 20));
	if (bytes < MACHINE_MEMORY_MIN)
		return err_set(err, -EINVAL, "a machine needs %llu MiB",
			       (unsigned long long)(MACHINE_MEMORY_MIN >> 20));
	if (!m->balloon)
		return err_set(err, -EOPNOTSUPP, "the machine has no balloon");
	r = virtio_balloon_want(m->balloon, m->mem->size - bytes);
	return r < 0 ? err_set(err, r, "the guest's kernel has no driver for the balloon") : 0;
}

void machine_pause(struct machine *m)
{
	vm_pause(m->vm);
}

void machine_resume(struct machine *m)
{
	vm_resume(m->vm);
}
