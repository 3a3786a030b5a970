/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For benchmarks: a machine without libroux, agent or second process around it.
 *
 *   boot SPEC      runs the machine that file SPEC (machine/spec.h) describes, its
 *                  serial console on standard output, until the guest powers off
 *   boot --kernel  prints the path of the default kernel, fetching it when needed
 *   boot --initramfs
 *                  prints the path of an archive with that kernel's modules for disks, in
 *                  /modules, and /modules/order, in which they can be loaded
 *   boot --tsc     prints this host's TSC rate in kHz, which guests of other
 *                  machine monitors are told so that they calibrate nothing
 */
#include "build/initramfs.h"
#include "build/kernel.h"
#include "machine/machine.h"
#include "machine/spec.h"
#include "os/err.h"
#include "os/file.h"
#include "os/loop.h"
#include "vmm/tsc.h"
#include "vmm/vm.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct run {
	struct loop *loop;
	struct machine *machine;
	enum vcpu_exit exit;
	char reason[256];
};

static void on_console(void *ctx, const uint8_t *data, size_t len)
{
	(void)ctx;
	while (len) {
		ssize_t n = write(STDOUT_FILENO, data, len);

		if (n < 0)
			return;	/* nobody reads any more; the machine goes on */
		data += n;
		len -= (size_t)n;
	}
}

static void on_ended(void *ctx, const struct vm_end *end)
{
	struct run *run = ctx;

	run->exit = end->exit;
	(void)snprintf(run->reason, sizeof(run->reason), "%s", end->reason);
	loop_quit(run->loop);
}

static int run_machine(struct run *run, const struct machine_spec *spec, struct err *err)
{
	struct machine_events events = { .ended = on_ended, .console = on_console, .ctx = run };
	char cache[PATH_MAX];
	int r = file_cache_dir("kernels", cache, err);

	if (r == 0)
		r = loop_create(&run->loop, err);
	if (r == 0)
		r = machine_create(run->loop, spec, cache, NULL, &events, &run->machine, err);
	if (r == 0)
		r = machine_start(run->machine, err);
	if (r == 0)
		r = loop_run(run->loop, err);
	machine_destroy(run->machine);
	loop_destroy(run->loop);
	if (r == 0 && run->exit != VCPU_EXIT_POWEROFF)
		r = err_set(err, -EIO, "the guest did not power off: %s", run->reason);
	return r;
}

static int boot(const char *path, struct err *err)
{
	struct run run = { .exit = VCPU_EXIT_POWEROFF };
	struct machine_spec spec;
	char *text;
	size_t len;
	int r = file_read_all(path, SPEC_TEXT_MAX, &text, &len, err);

	if (r < 0)
		return r;
	machine_spec_init(&spec);
	r = machine_spec_read(&spec, text, len, err);
	free(text);
	if (r == 0)
		r = run_machine(&run, &spec, err);
	machine_spec_finish(&spec);
	return r;
}

static int print_kernel(struct err *err)
{
	static struct kernel_package kernel;
	int r = kernel_package_get(false, NULL, &kernel, err);

	if (r == 0)
		printf("%s\n", kernel.vmlinuz);
	return r;
}

static int print_initramfs(struct err *err)
{
	static struct kernel_package kernel;
	char path[PATH_MAX];
	int r = kernel_package_get(false, NULL, &kernel, err);

	if (r == 0)
		r = initramfs_get(&kernel, INITRAMFS_ALL, path, err);
	if (r == 0)
		printf("%s\n", path);
	return r;
}

int main(int argc, char **argv)
{
	struct err err = { 0 };
	int r = 0;

	if (argc != 2) {
		(void)fprintf(stderr, "usage: boot SPEC | --kernel | --initramfs | --tsc\n");
		return 2;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	if (strcmp(argv[1], "--tsc") == 0)
		printf("%u\n", host_tsc_khz());
	else if (strcmp(argv[1], "--kernel") == 0)
		r = print_kernel(&err);
	else if (strcmp(argv[1], "--initramfs") == 0)
		r = print_initramfs(&err);
	else
		r = boot(argv[1], &err);
	if (r == 0)
		return 0;
	(void)fprintf(stderr, "boot: %s\n", err.msg[0] ? err.msg : strerror(-r));
	return 1;
}
