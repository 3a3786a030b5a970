/* SPDX-License-Identifier: Apache-2.0 */
/* roux create, and what run shares with it. */
#include "cli/create.h"

#include "cli/cli.h"
#include "life/events.h"
#include "oci/image.h"
#include "os/err.h"
#include "os/file.h"
#include "os/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *own_path(void)
{
	static char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	if (n <= 0)
		return NULL;
	path[n] = '\0';
	return path;
}

/* The VM may be started again from another folder: relative paths become absolute.  NULL: no memory. */
static char *absolute(const char *path)
{
	char cwd[PATH_MAX], *joined;

	if (path[0] == '/' || !getcwd(cwd, sizeof(cwd)))
		return strdup(path);
	return asprintf(&joined, "%s/%s", cwd, path) < 0 ? NULL : joined;
}

static bool take_text(char **ret, const char *text)
{
	*ret = text ? strdup(text) : NULL;
	return *ret || !text;
}

static bool take_path(char **ret, const char *path)
{
	*ret = path ? absolute(path) : NULL;
	return *ret || !path;
}

static bool take_mounts(struct vm_config *c, const struct run_options *r)
{
	bool ok = true;

	for (unsigned i = 0; ok && i < r->machine.nshares; i++) {
		struct vm_share *s = &c->share[c->nshares++];

		s->read_only = r->shares[i].read_only;
		ok = take_path(&s->host, r->shares[i].host) && take_text(&s->guest, r->shares[i].guest);
	}
	for (unsigned i = 0; ok && i < r->machine.ndisks; i++) {
		struct vm_disk *d = &c->disk[c->ndisks++];

		d->read_only = r->disks[i].read_only;
		d->overlay = r->disks[i].overlay;
		ok = take_path(&d->path, r->disks[i].path);
	}
	return ok;
}

static bool take_network(struct vm_network *n, const struct run_options *r)
{
	static const char *const kinds[] = { [ROUX_NETWORK_USER] = "user", [ROUX_NETWORK_TAP] = "tap",
					     [ROUX_NETWORK_NAMED] = "named" };
	const struct roux_network *from = &r->network;

	if (r->machine.nnetworks == 0)
		return true;
	n->send_bytes = from->send_bytes;
	n->send_frames = from->send_frames;
	n->receive_bytes = from->receive_bytes;
	n->receive_frames = from->receive_frames;
	return take_text(&n->kind, kinds[from->kind]) && take_text(&n->name, from->name) && take_text(&n->address4, from->address4) &&
	       take_text(&n->gateway4, from->gateway4) && take_text(&n->address6, from->address6) &&
	       take_text(&n->gateway6, from->gateway6) && take_path(&n->pcap, from->pcap);
}

_Static_assert(RUN_SHARES_MAX <= RECORD_SHARES_MAX && RUN_DISKS_MAX <= RECORD_DISKS_MAX, "all fit into a record");

static bool fill_record(struct vm_record *record, struct run_options *r)
{
	struct vm_config *c = &record->config;

	*c = r->life;
	r->life = (struct vm_config){ .image = NULL };
	if (r->name)
		(void)snprintf(record->name, sizeof(record->name), "%s", r->name);
	c->no_entrypoint = !r->exec.use_entrypoint;
	c->tty = r->exec.tty;
	c->open_stdin = r->interactive;
	c->stdin_once = r->interactive && !r->detach;
	c->read_only = r->machine.read_only;
	c->no_template = r->machine.no_template;
	c->merge_memory = r->machine.merge_memory;
	c->no_pull = r->machine.pull == ROUX_PULL_NEVER;
	c->insecure = r->machine.insecure_registry;
	c->cpus = r->machine.cpus;
	c->memory = r->machine.memory;
	c->timeout_s = r->timeout_s;
	return (oci_image_is_path(r->machine.image) ? take_path : take_text)(&c->image, r->machine.image) &&
	       take_text(&c->cwd, r->exec.cwd) && take_text(&c->user, r->exec.user) &&
	       take_text(&c->hostname, r->machine.hostname) && take_text(&c->engine, r->machine.engine) &&
	       take_path(&c->kernel, r->machine.kernel) && take_text(&c->append, r->machine.append) &&
	       strings_add_all(&c->argv, r->exec.argv) == 0 && strings_add_all(&c->env, r->exec.env) == 0 &&
	       take_mounts(c, r) && take_network(&c->network, r);
}

/* The file must be new, so that no script takes the id of another VM for its own. */
static int write_cidfile(const char *path, const char *id)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666), r;

	if (fd < 0)
		return complain(EXIT_ROUX, "--cidfile %s: %s", path, errno == EEXIST ? "the file exists already; remove it" :
				strerror(errno));
	r = file_write_all(fd, id, VM_ID_SIZE - 1);
	(void)close(fd);
	return r < 0 ? complain(EXIT_ROUX, "--cidfile %s: %s", path, strerror(-r)) : 0;
}

int create_vm(const struct vms *vms, struct run_options *r, enum vm_status begins, struct vm_record *record,
	      struct vm_owned *ret_owned)
{
	struct err err = { 0 };
	int status = 0;

	record_init(record);
	if (r->name && strlen(r->name) >= VM_NAME_MAX)
		return complain(EXIT_ROUX, "a name has at most %d characters", VM_NAME_MAX - 1);
	if (r->name && !*r->name)
		return complain(EXIT_ROUX, "--name needs a name");
	if (r->machine.merge_memory && !memory_merges())
		(void)complain(0, "note: KSM is off on this host; memory is merged once root has run 'echo 1 >/sys/kernel/mm/ksm/run'");
	if (!fill_record(record, r))
		return complain(EXIT_ROUX, "out of memory");
	record->state.status = begins;
	if (vms_create(vms, record, ret_owned, &err) < 0)
		return complain(EXIT_ROUX, "%s", err.msg);
	events_add(vms, record, "create", NULL);
	if (r->cidfile)
		status = write_cidfile(r->cidfile, record->id);
	if (status) {
		(void)vm_remove(vms, ret_owned, record->name, NULL);
		vm_release(ret_owned);
	}
	return status;
}

int verb_create(int argc, char **argv)
{
	static struct run_options r;
	struct vm_record record;
	struct vm_owned owned = { .lock_fd = -1 };
	struct err err = { 0 };
	struct vms vms;
	int status = run_options_parse(&r, argc, argv);

	record_init(&record);
	if (status == 0 && vms_open(&vms, &err) < 0)
		status = complain(EXIT_ROUX, "%s", err.msg);
	if (status == 0)
		status = fetch_image(&r);
	if (status == 0)
		status = create_vm(&vms, &r, VM_CREATED, &record, &owned);
	if (status == 0) {
		vm_sync(&vms, &owned);
		vm_release(&owned);
		(void)puts(record.id);
	}
	record_finish(&record);
	run_options_finish(&r);
	return status < 0 ? 0 : status;
}
