/* SPDX-License-Identifier: Apache-2.0 */
/*
 * roux run: a VM for one command.  A monitor is forked off, which owns the VM; what
 * stays is a window to it (cli/attached.h), or with -d only the wait for its start.
 *
 * Signals are blocked before the fork and read from there on: what comes before the
 * command runs calls the start off, later ones are passed on to the command.
 */
#include "cli/attached.h"
#include "cli/cli.h"
#include "cli/create.h"
#include "life/client.h"
#include "life/monitor.h"
#include "os/err.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

int run_vm(const struct vms *vms, struct vm_owned *owned, const struct vm_record *record,
	   const struct monitor_options *options, struct attached *how)
{
	struct monitor_options o = *options;
	struct session session;
	struct err err = { 0 };
	int fd, code = EXIT_ROUX;

	if (how->tty)
		(void)terminal_size(&o.rows, &o.cols);
	how->linger = true;
	if (monitor_fork(vms, owned, record, &o, &fd, &err) < 0)
		return complain(EXIT_ROUX, "%s", err.msg);
	if (client_upgrade(fd, how->output ? "/v1/attach" : "/v1/attach?output=0", NULL, &session, &code, &err) < 0) {
		(void)close(fd);
		return complain(code, "%s", err.msg);
	}
	return attached_run(&session, how);
}

static int run(struct run_options *r, uint64_t begin_ns)
{
	struct monitor_options options = { .vmm = own_path(), .fresh = true, .console = r->console, .phases = r->json, .counters = r->stats,
					   .gdb = r->machine.gdb, .gdb_wait = r->machine.gdb_wait,
					   .gdb_port = r->machine.gdb_port };
	struct attached how = { .input = r->interactive && !r->detach, .output = !r->detach, .tty = r->exec.tty && !r->detach,
				.signals = true, .until_started = r->detach, .timeout_s = r->timeout_s,
				.deadline_ns = r->timeout_s ? begin_ns + r->timeout_s * 1000000000ull : 0 };
	struct vm_owned owned = { .lock_fd = -1 };
	struct vm_record record;
	struct err err = { 0 };
	struct vms vms;
	int status;

	if (how.input && how.tty && !detach_keys_parse(r->detach_keys ? r->detach_keys : "ctrl-p,ctrl-q", &how.keys))
		return complain(EXIT_ROUX, "--detach-keys needs keys such as ctrl-p,ctrl-q, not '%s'", r->detach_keys);
	if (vms_open(&vms, &err) < 0)
		return complain(EXIT_ROUX, "%s", err.msg);
	status = fetch_image(r);
	if (status)
		return status;
	attached_signals();
	status = create_vm(&vms, r, VM_STARTING, &record, &owned);
	how.name = record.name;
	if (status == 0)
		status = run_vm(&vms, &owned, &record, &options, &how);
	if (status == 0 && r->detach)
		(void)puts(record.id);
	record_finish(&record);
	return status;
}

int verb_run(int argc, char **argv)
{
	static struct run_options r;
	uint64_t begin_ns = monotonic_ns();
	int status = run_options_parse(&r, argc, argv);

	if (status == 0 && r.exec.tty && r.interactive && !r.detach && !isatty(STDIN_FILENO))
		status = complain(EXIT_ROUX, "-t with -i needs a terminal as standard input; leave out -t");
	if (status == 0)
		status = run(&r, begin_ns);
	run_options_finish(&r);
	return status < 0 ? 0 : status;
}
