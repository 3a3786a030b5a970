/* SPDX-License-Identifier: Apache-2.0 */
/* From what a caller wants to a machine spec: image, kernel, initramfs, guest configuration. */
#include "api/handle.h"

#include "api/boot_code.h"
#include "api/conf.h"
#include "api/network.h"
#include "api/template.h"
#include "base/hex.h"
#include "build/initramfs.h"
#include "build/kernel.h"
#include "build/kernel_built.h"
#include "oci/image.h"
#include "oci/transfer.h"
#include "store/store.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

/*
 * What every guest gets: no search for hardware that is not there, no waiting
 * for calibration, reset (seen by roux) instead of a hang after a panic, no ticks
 * waited for where RCU can ask the few processors that there are.
 */
#define CMDLINE "console=ttyS0 quiet panic=-1 reboot=k nokaslr tsc=reliable no_timer_check " \
	"rcupdate.rcu_expedited=1 random.trust_cpu=on mitigations=off noreplace-smp cryptomgr.notests pci=off 8250.nr_uarts=1 rdinit=/init"

static int add_share(struct machine_spec *spec, const char *tag, const char *path, bool read_only,
		     enum spec_cache cache, struct err *err)
{
	struct spec_share *s = &spec->share[spec->nshares];

	if (spec->nshares == SPEC_SHARES_MAX)
		return err_set(err, -EINVAL, "a machine can share at most %d folders", SPEC_SHARES_MAX);
	s->path = realpath(path, NULL);
	if (!s->path)
		return err_set(err, -errno, "cannot share %s: %s", path, strerror(errno));
	s->tag = strdup(tag);
	s->read_only = read_only;
	s->cache = cache;
	spec->nshares++;
	return s->tag ? 0 : err_set(err, -ENOMEM, "out of memory");
}

/* The layers as a disk, behind the user's own disks, so that these keep their names. */
static int add_root_disk(struct roux_machine *m, const struct oci_limits *limits, struct conf_text *conf,
			 struct err *err)
{
	struct spec_disk *d = &m->spec.disk[m->spec.ndisks];
	char *const *path;
	size_t count;
	int r;

	if (m->spec.ndisks == SPEC_DISKS_MAX)
		return err_set(err, -EINVAL, "a machine can have at most %d disks with its root", SPEC_DISKS_MAX);
	r = oci_image_disk(m->image, limits, &path, &count, err);
	if (r < 0)
		return r;
	conf_add(conf, "root=blk:/dev/vd%c:erofs\n", 'a' + (int)m->spec.ndisks);
	m->spec.ndisks++;
	d->read_only = true;
	d->path = strdup(path[0]);
	r = !d->path ? -ENOMEM : count > SPEC_PARTS_MAX ? -EINVAL : 0;
	for (size_t i = 1; i < count && r == 0; i++)
		r = spec_list_add(&d->more, path[i]);
	return r < 0 ? err_set(err, r, "cannot describe the image's disk: %s", strerror(-r)) : 0;
}

static enum oci_policy policy_of(enum roux_pull pull)
{
	switch (pull) {
	case ROUX_PULL_ALWAYS: return OCI_PULL_ALWAYS;
	case ROUX_PULL_NEVER: return OCI_PULL_NEVER;
	case ROUX_PULL_MISSING: break;
	}
	return OCI_PULL_MISSING;
}

/* A path, or the name of an image, which then is leased for as long as the machine exists. */
static int open_image(struct roux_machine *m, const struct roux_options *o, struct err *err)
{
	const struct oci_transfer transfer = { .insecure = o->insecure_registry, .cancel = o->cancel };
	struct store_ref ref;
	int r;

	if (oci_image_is_path(o->image))
		return oci_image_open(o->image, &m->image, err);
	r = store_open(NULL, &m->store, err);
	if (r == 0)
		r = store_lease_begin(m->store, &m->lease, err);
	if (r == 0)
		r = oci_obtain(m->store, m->lease, o->image, policy_of(o->pull), &transfer, &ref, err);
	return r < 0 ? r : oci_image_open_stored(m->store, ref.digest, o->image, &m->image, err);
}

static int add_root(struct roux_machine *m, const struct roux_options *o, struct conf_text *conf, struct err *err)
{
	struct oci_limits limits = oci_limits_default;
	const char *folder;
	int r;

	if (!o->image)
		return 0;
	limits.cancel = o->cancel;
	r = open_image(m, o, err);
	if (r < 0)
		return r;
	m->config = oci_image_config(m->image);
	folder = oci_image_folder(m->image);
	if (folder) {
		m->root_share = (int)m->spec.nshares;
		r = add_share(&m->spec, "root", folder, true, SPEC_CACHE_AUTO, err);
		conf_add(conf, "root=virtiofs:root\n");
	} else {
		m->root_disk = (int)m->spec.ndisks;
		r = add_root_disk(m, &limits, conf, err);
	}
	/* A read-only root has the overlay too: it takes the mount points that the image lacks. */
	conf_add(conf, "overlay=tmpfs\n%s", o->read_only ? "readonly=yes\n" : "");
	return r;
}

/* What the initramfs needs modules for. */
static unsigned parts_of(const struct machine_spec *spec, const struct roux_options *o)
{
	bool image = spec->ndisks > o->ndisks;

	return (spec->nshares ? INITRAMFS_SHARE : 0u) | (image ? INITRAMFS_IMAGE : 0u) |
	       (spec->nnets ? INITRAMFS_NET : 0u) | (o->ndisks ? INITRAMFS_DISK : 0u);
}

static int add_shares(struct roux_machine *m, const struct roux_options *o, struct conf_text *conf, struct err *err)
{
	int r = 0;

	for (unsigned i = 0; i < o->nshares && r == 0; i++) {
		const struct roux_share *s = &o->shares[i];
		struct stat st;
		char tag[16];

		if (!s->host || !s->guest || s->guest[0] != '/' || strchr(s->guest, '\n'))
			return err_set(err, -EINVAL, "a shared folder needs an absolute path in the guest, not '%s'",
				       s->guest ? s->guest : "");
		if (stat(s->host, &st) < 0)
			return err_set(err, -errno, "cannot share %s: %s", s->host, strerror(errno));
		if (!S_ISDIR(st.st_mode))
			return err_set(err, -ENOTDIR, "cannot share %s: only folders can be shared", s->host);
		(void)snprintf(tag, sizeof(tag), "share%u", i);
		r = add_share(&m->spec, tag, s->host, s->read_only, SPEC_CACHE_AUTO, err);
		conf_add(conf, "mount=virtiofs:%s:%s:%s\n", s->read_only ? "ro" : "rw", tag, s->guest);
	}
	return r;
}

static int add_disks(struct roux_machine *m, const struct roux_options *o, struct err *err)
{
	if (o->ndisks > SPEC_DISKS_MAX)
		return err_set(err, -EINVAL, "a machine can have at most %d disks", SPEC_DISKS_MAX);
	for (unsigned i = 0; i < o->ndisks; i++) {
		struct spec_disk *d = &m->spec.disk[m->spec.ndisks++];

		d->path = realpath(o->disks[i].path, NULL);
		d->read_only = o->disks[i].read_only;
		d->overlay = o->disks[i].overlay;
		if (!d->path)
			return err_set(err, -errno, "disk %s: %s", o->disks[i].path, strerror(errno));
	}
	return 0;
}

/* One of the user's, one that was built, or Debian's own; only the last has modules. */
static int add_kernel(struct roux_machine *m, const struct roux_options *o, struct err *err)
{
	unsigned parts = parts_of(&m->spec, o);
	struct kernel_package package;
	char path[PATH_MAX], initrd[PATH_MAX];
	int r = o->kernel ? -ENOENT : kernel_built_current(path, err);
	bool packaged = !o->kernel && r == -ENOENT;

	if (o->kernel)
		r = realpath(o->kernel, path) ? 0 : err_set(err, -errno, "kernel %s: %s", o->kernel, strerror(errno));
	else if (packaged)
		r = kernel_package_get(false, o->cancel, &package, err);
	if (r == 0)
		r = initramfs_get(packaged ? &package : NULL, parts, initrd, err);
	if (r < 0)
		return r;
	m->spec.kernel = strdup(packaged ? package.vmlinuz : path);
	r = m->spec.kernel ? spec_list_add(&m->spec.initrd, initrd) : -ENOMEM;
	return r == 0 ? 0 : err_set(err, -ENOMEM, "out of memory");
}

static int finish_spec(struct roux_machine *m, const struct roux_options *o, struct conf_text *conf, struct err *err)
{
	char cmdline[2048];
	int n;

	if (o->engine) {
		m->spec.engine = strdup(o->engine);
		if (!m->spec.engine)
			return err_set(err, -ENOMEM, "out of memory");
	}
	m->spec.balloon = true;
	m->spec.merge = o->merge_memory;
	m->spec.gdb = o->gdb;
	m->spec.gdb_port = o->gdb_port;
	m->spec.gdb_wait = o->gdb && o->gdb_wait;
	if (o->cpus)
		m->spec.cpus = o->cpus;
	if (o->memory)
		m->spec.memory = (o->memory + (2u << 20) - 1) & ~(uint64_t)((2u << 20) - 1);
	n = snprintf(cmdline, sizeof(cmdline), "%s%s%s", CMDLINE, o->append ? " " : "", o->append ? o->append : "");
	if (n < 0 || (size_t)n >= sizeof(cmdline))
		return err_set(err, -E2BIG, "the kernel command line is too long");
	m->spec.cmdline = strdup(cmdline);
	m->spec.guest_conf = strdup(conf->buf);
	return m->spec.cmdline && m->spec.guest_conf ? 0 : err_set(err, -ENOMEM, "out of memory");
}

static int draw_machine_id(char ret_id[MACHINE_ID_DIGITS + 1])
{
	uint8_t random[MACHINE_ID_DIGITS / 2];

	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return -EIO;
	hex_write(ret_id, random, sizeof(random));
	return 0;
}

static int add_names(struct roux_machine *m, const struct roux_options *o, struct err *err)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
	static const char hex[] = "0123456789abcdef";
	const char *name = o->hostname ? o->hostname : "roux";
	size_t len = strlen(name);

	if (len == 0 || len > HOST_NAME_MAX || strspn(name, allowed) != len)
		return err_set(err, -EINVAL, "a host name has 1 to %d letters, digits, '-', '.' and '_'", HOST_NAME_MAX);
	if (o->machine_id && (strlen(o->machine_id) != MACHINE_ID_DIGITS || strspn(o->machine_id, hex) != MACHINE_ID_DIGITS))
		return err_set(err, -EINVAL, "a machine id has %d digits 0 to 9 and a to f", MACHINE_ID_DIGITS);
	if (o->machine_id)
		memcpy(m->machine_id, o->machine_id, MACHINE_ID_DIGITS);
	else if (draw_machine_id(m->machine_id) < 0)
		return err_set(err, -EIO, "no random numbers for a machine id");
	m->hostname = strdup(name);
	return m->hostname ? 0 : err_set(err, -ENOMEM, "out of memory");
}

int prepare(struct roux_machine *m, const struct roux_options *o, struct err *err)
{
	struct conf_text *conf = calloc(1, sizeof(*conf));
	char path[PATH_MAX];
	int r;

	if (!conf)
		return err_set(err, -ENOMEM, "out of memory");
	machine_spec_init(&m->spec);
	m->root_share = m->root_disk = -1;
	r = add_names(m, o, err);
	if (r == 0)
		r = add_disks(m, o, err);
	if (r == 0)
		r = add_root(m, o, conf, err);
	m->phase[ROUX_PHASE_IMAGE] = monotonic_ns();
	if (r == 0)
		r = add_shares(m, o, conf, err);
	if (r == 0)
		r = add_networks(m, o, conf, err);
	if (r == 0)
		r = add_kernel(m, o, err);
	m->phase[ROUX_PHASE_KERNEL] = monotonic_ns();
	if (r == 0)
		r = finish_spec(m, o, conf, err);
	if (r == 0)
		r = machine_spec_check(&m->spec, err);
	if (r == 0 && !o->no_template && template_path(&m->spec, m->vmm, path)) {
		m->template = strdup(path);
		r = m->template ? 0 : err_set(err, -ENOMEM, "out of memory");
	}
	if (r == 0 && boot_code_path(&m->spec, m->vmm, path)) {
		m->boot_code = strdup(path);
		r = m->boot_code ? 0 : err_set(err, -ENOMEM, "out of memory");
	}
	free(conf);
	return r;
}
