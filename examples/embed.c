/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two micro-VMs in one program: embed ROOTFS.
 *
 *   cc embed.c $(pkg-config --cflags --libs libroux) -o embed
 *
 * Both run at the same time; each runs one command, whose output is captured,
 * and powers off when it ends.  Whatever fails, every call returns here.
 */
#define _POSIX_C_SOURCE 200809L	/* poll, fileno */
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <roux/roux.h>

#define COMMAND "echo \"hello from $(hostname)\"; echo \"$(hostname) writes to its console\" > /dev/console; exit 7"

struct vm {
	const char *name;
	struct roux_machine *machine;
	struct roux_process *process;
	FILE *output;	/* of the command */
};

static int complain(const struct vm *vm, const char *what, const struct roux_error *error)
{
	fprintf(stderr, "embed: %s: cannot %s: %s\n", vm->name, what, error->message);
	return -1;
}

/* From nothing to a command that runs. */
static int launch(struct vm *vm, const char *rootfs)
{
	const char *const argv[] = { "sh", "-c", COMMAND, NULL };
	struct roux_options options = { .size = sizeof(options), .image = rootfs, .hostname = vm->name,
					.memory = 128 << 20 };
	struct roux_exec_options exec = { .size = sizeof(exec), .argv = argv, .stdin_fd = -1, .stderr_fd = 2,
					  .primary = true };
	struct roux_error error = { 0 };

	vm->output = tmpfile();
	if (!vm->output) {
		perror("embed: tmpfile");
		return -1;
	}
	exec.stdout_fd = fileno(vm->output);
	if (roux_machine_create(&options, &vm->machine, &error) < 0)
		return complain(vm, "create", &error);
	if (roux_machine_start(vm->machine, &error) < 0)
		return complain(vm, "start", &error);
	if (roux_exec(vm->machine, &exec, &vm->process, &error) < 0)
		return complain(vm, "run the command", &error);
	return 0;
}

/* Events: the machine's descriptor gets readable when something happened to it. */
static void await_power_off(struct vm *vm)
{
	struct pollfd fd = { .fd = roux_machine_fd(vm->machine), .events = POLLIN };

	while (roux_machine_dispatch(vm->machine) == ROUX_RUNNING && poll(&fd, 1, 10000) > 0)
		;
}

static int collect(struct vm *vm)
{
	struct roux_error error = { 0 };
	struct roux_exit how;
	char line[128];

	if (roux_process_wait(vm->process, 30000, &how, &error) < 0)
		return complain(vm, "wait", &error);
	rewind(vm->output);
	while (fgets(line, sizeof(line), vm->output))
		printf("%s: output: %s", vm->name, line);
	printf("%s: status: %d\n", vm->name, how.status);
	await_power_off(vm);
	printf("%s: powered off: %s\n", vm->name,
	       roux_machine_dispatch(vm->machine) == ROUX_STOPPED ? "yes" : "no");
	printf("%s: console: %s\n", vm->name, roux_machine_console_tail(vm->machine));
	return 0;
}

static void discard(struct vm *vm)
{
	roux_process_destroy(vm->process);
	roux_machine_destroy(vm->machine);
	if (vm->output)
		fclose(vm->output);
}

int main(int argc, char **argv)
{
	struct vm one = { .name = "one" }, two = { .name = "two" };
	int r = -1;

	if (argc != 2) {
		fprintf(stderr, "usage: embed ROOTFS\n");
		return 2;
	}
	if (launch(&one, argv[1]) == 0 && launch(&two, argv[1]) == 0) {
		printf("both run, in processes %s\n",
		       roux_machine_pid(one.machine) != roux_machine_pid(two.machine) ? "of their own" : "that are one");
		r = collect(&one) < 0 || collect(&two) < 0 ? -1 : 0;
	}
	discard(&two);
	discard(&one);
	return r < 0 ? 1 : 0;
}
