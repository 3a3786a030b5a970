/* SPDX-License-Identifier: Apache-2.0 */
/*
 * roux run: a machine for one command.
 *
 * Signals: the command's own (Ctrl-C and friends) are passed on to the guest,
 * SIGTERM as the image's stop signal; before the command runs they end roux.
 * All are handled by a flag and by interrupting the library's waiting, so
 * cleaning up is the ordinary way out.
 * SIGALRM, at the end of --timeout, is not passed on: it only stops the preparations;
 * later the clock tells.
 */
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/options.h"
#include "cli/progress.h"

#include "oci/image.h"
#include "roux/roux.h"

#include <errno.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define COUNTERS_MAX 32

static volatile sig_atomic_t caught;	/* last signal to pass on */
static volatile int stop;	/* the end is wanted: a signal, or SIGALRM */
static volatile sig_atomic_t resized;
static volatile sig_atomic_t commanded;	/* the command runs: a new size is news */
static struct roux_machine *volatile current;	/* whose waits end on a signal, or NULL */

static void on_signal(int sig)
{
	if (sig == SIGWINCH)
		resized = 1;
	else if (sig != SIGALRM)
		caught = sig;
	if (sig != SIGWINCH)
		stop = 1;
	if (current && (sig != SIGWINCH || commanded))
		roux_machine_interrupt(current);
}

/* ----------------------------------------------------------------- terminal */

static struct termios saved_termios;
static int raw_fd = -1;

/* The guest's terminal does the editing and the line ends: this one passes bytes. */
static void terminal_raw(bool interactive)
{
	int fd = interactive ? STDIN_FILENO : STDOUT_FILENO;
	struct termios raw;

	if (tcgetattr(fd, &saved_termios) < 0)
		return;
	raw = saved_termios;
	if (interactive)
		cfmakeraw(&raw);
	else
		raw.c_oflag &= ~(tcflag_t)OPOST;	/* keys such as Ctrl-C keep their meaning here */
	if (tcsetattr(fd, TCSANOW, &raw) == 0)
		raw_fd = fd;
}

static void terminal_restore(void)
{
	if (raw_fd >= 0)
		(void)tcsetattr(raw_fd, TCSANOW, &saved_termios);
	raw_fd = -1;
}

static bool terminal_size(uint16_t *rows, uint16_t *cols)
{
	struct winsize ws;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) < 0 && ioctl(STDIN_FILENO, TIOCGWINSZ, &ws) < 0)
		return false;
	*rows = ws.ws_row;
	*cols = ws.ws_col;
	return ws.ws_row && ws.ws_col;
}

static void catch_signals(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGALRM };
	struct sigaction sa = { .sa_handler = on_signal };

	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		(void)sigaction(signals[i], &sa, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
}

/* ------------------------------------------------------------------ running */

static uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void show_console(void *ctx, const void *data, size_t len)
{
	(void)ctx;
	(void)fwrite(data, 1, len, stderr);
}

static void tell_gdb(void *ctx, uint16_t port)
{
	(void)ctx;
	(void)fprintf(stderr, "roux: GDB may connect: target remote 127.0.0.1:%u\n", port);
}

static void print_phases(const struct roux_machine *m, uint64_t started, uint64_t ended)
{
	static const char *const names[ROUX_PHASES] = {
		[ROUX_PHASE_IMAGE] = "image", [ROUX_PHASE_KERNEL] = "kernel", [ROUX_PHASE_SPAWNED] = "spawn",
		[ROUX_PHASE_LOADED] = "load", [ROUX_PHASE_READY] = "boot" };
	uint64_t begin = roux_machine_phase_ns(m, ROUX_PHASE_BEGIN), before = begin;

	(void)fprintf(stderr, "{\"engine\": \"%s\", \"phases_ms\": {", roux_machine_engine(m));
	for (unsigned i = ROUX_PHASE_IMAGE; i < ROUX_PHASES; i++) {
		uint64_t at = roux_machine_phase_ns(m, (enum roux_phase)i);

		(void)fprintf(stderr, "\"%s\": %.3f, ", names[i], at ? (double)(at - before) / 1e6 : 0.0);
		before = at ? at : before;
	}
	(void)fprintf(stderr, "\"exec\": %.3f, \"command\": %.3f}, \"total_ms\": %.3f}\n",
		      (double)(started - before) / 1e6, (double)(ended - started) / 1e6,
		      (double)(ended - begin) / 1e6);
}

/* Counters of the engine when the command starts, then when it has ended. */
struct stats {
	uint64_t began_ns;
	unsigned n;
	uint64_t before[COUNTERS_MAX];
	unsigned i;	/* of the next counter to come */
};

static void keep_counter(void *ctx, const char *name, uint64_t value)
{
	struct stats *s = ctx;

	(void)name;
	if (s->n < COUNTERS_MAX)
		s->before[s->n++] = value;
}

static void print_counter(void *ctx, const char *name, uint64_t value)
{
	struct stats *s = ctx;
	uint64_t before = s->i < s->n ? s->before[s->i] : 0;
	int64_t more = (int64_t)(value - before);	/* code_bytes may have become less */
	double seconds = (double)(now_ns() - s->began_ns) / 1e9;

	s->i++;
	(void)fprintf(stderr, "%-12s %14llu %14lld %14.0f\n", name, (unsigned long long)before, (long long)more,
		      (double)more / seconds);
}

static void begin_stats(struct stats *s, struct roux_machine *m)
{
	*s = (struct stats){ .began_ns = now_ns() };
	(void)roux_machine_counters(m, keep_counter, s, NULL);
}

static void end_stats(struct stats *s, struct roux_machine *m)
{
	struct roux_error error = { 0 };

	(void)fprintf(stderr, "%-12s %14s %14s %14s\n", roux_machine_engine(m), "start-up", "command", "a second");
	if (roux_machine_counters(m, print_counter, s, &error) < 0)
		(void)complain(EXIT_ROUX, "%s", error.message);
}

static int exec_status(const struct roux_error *error)
{
	if (error->code == -ENOENT)
		return EXIT_NOT_FOUND;
	return error->code == -EACCES || error->code == -ENOEXEC || error->code == -EISDIR ? EXIT_NOT_RUNNABLE : EXIT_ROUX;
}

static int wait_process(struct run_options *r, struct roux_machine *m, struct roux_process *p, uint64_t deadline)
{
	struct roux_error error = { 0 };
	struct roux_exit how;
	uint16_t rows, cols;

	for (;;) {
		uint64_t now = now_ns();
		int left = -1, res;

		if (deadline && now >= deadline) {
			terminal_restore();
			return complain(EXIT_TIMEOUT, "the command did not end within %u s; the machine was stopped", r->timeout_s);
		}
		if (deadline)
			left = (int)((deadline - now) / 1000000 + 1);
		if (resized) {
			resized = 0;
			if (r->exec.tty && terminal_size(&rows, &cols))
				(void)roux_process_resize(p, rows, cols);
		}
		if (caught) {
			int sig = caught;

			caught = 0;
			(void)roux_process_signal(p, sig == SIGTERM ? roux_machine_stop_signal(m) : sig);
		}
		res = roux_process_wait(p, left, &how, &error);
		if (res == 0)
			return how.status;
		if (res == -EINTR || res == -ETIMEDOUT)
			continue;
		terminal_restore();
		return complain(EXIT_ROUX, "%s", error.message);
	}
}

/* What an interrupted start means: a signal to roux, or the end of --timeout. */
static int interrupted(const struct run_options *r)
{
	if (caught)
		return 128 + caught;
	return complain(EXIT_TIMEOUT, "the command was not running within %u s; the machine was stopped", r->timeout_s);
}

static int run_in(struct run_options *r, struct roux_machine *m, uint64_t deadline)
{
	struct roux_process *p = NULL;
	struct roux_error error = { 0 };
	struct stats stats;
	uint64_t started;
	int status;

	if (roux_machine_start(m, &error) < 0) {
		/* A signal to roux's group may also hit the VM's process before it has a group of its own. */
		if (error.code == -EINTR || caught)
			return interrupted(r);
		(void)complain(EXIT_ROUX, "%s%s", error.message,
			       *roux_machine_console_tail(m) && !r->console ? " (--console shows more)" : "");
		return error.code == -ETIMEDOUT && r->timeout_s ? EXIT_TIMEOUT : EXIT_ROUX;
	}
	r->exec.stdin_fd = r->interactive ? STDIN_FILENO : -1;
	r->exec.stdout_fd = STDOUT_FILENO;
	r->exec.stderr_fd = STDERR_FILENO;
	if (r->exec.tty)
		(void)terminal_size(&r->exec.rows, &r->exec.cols);
	if (r->stats)
		begin_stats(&stats, m);
	if (roux_exec(m, &r->exec, &p, &error) < 0)
		return error.code == -EINTR || caught ? interrupted(r) : complain(exec_status(&error), "%s", error.message);
	commanded = 1;
	started = now_ns();
	if (r->exec.tty)
		terminal_raw(r->interactive);
	status = wait_process(r, m, p, deadline);
	terminal_restore();
	if (r->json)
		print_phases(m, started, now_ns());
	if (r->stats)
		end_stats(&stats, m);
	roux_process_destroy(p);
	return status;
}

/*
 * Fetches the image with its progress shown; the library would do it in silence.  What
 * is here in the end is what it finds.  Returns 0 or an exit status.
 */
static int fetch_image(struct run_options *r)
{
	static struct progress progress;
	const struct oci_transfer transfer = { .insecure = r->machine.insecure_registry, .cancel = &stop,
					       .progress = progress_show, .ctx = &progress };
	struct store_lease *lease = NULL;
	struct store *store = NULL;
	struct store_ref ref;
	struct err err = { 0 };
	int res;

	if (r->machine.pull == ROUX_PULL_NEVER || oci_image_is_path(r->machine.image))
		return 0;
	res = store_open(NULL, &store, &err);
	if (res == 0)
		res = store_lease_begin(store, &lease, &err);
	if (res == 0 && r->machine.pull == ROUX_PULL_MISSING && local_find(store, r->machine.image, &ref, NULL) == -ENOENT)
		(void)fprintf(stderr, "Unable to find image '%s' locally\n", r->machine.image);
	progress_begin(&progress, "Pull", false);
	if (res == 0)
		res = oci_obtain(store, lease, r->machine.image,
				 r->machine.pull == ROUX_PULL_ALWAYS ? OCI_PULL_ALWAYS : OCI_PULL_MISSING, &transfer, &ref, &err);
	store_lease_end(lease);
	store_close(store);
	r->machine.pull = ROUX_PULL_MISSING;
	if (res < 0)
		return stop ? interrupted(r) : complain(EXIT_ROUX, "%s", err.msg);
	return 0;
}

/* The command that runs is also the one that serves the VM. */
static const char *own_path(char *buf, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", buf, size - 1);

	if (n <= 0)
		return NULL;
	buf[n] = '\0';
	return buf;
}

int verb_run(int argc, char **argv)
{
	static struct run_options r;
	struct roux_machine *m = NULL;
	struct roux_error error = { 0 };
	struct itimerval end = { 0 };
	uint64_t deadline = 0;
	char self[4096];
	int status;

	status = run_options_parse(&r, argc, argv);
	if (status) {
		run_options_finish(&r);
		return status < 0 ? 0 : status;
	}
	if (r.exec.tty && r.interactive && !isatty(STDIN_FILENO))
		return complain(EXIT_ROUX, "-t with -i needs a terminal as standard input; leave out -t");
	r.machine.cancel = &stop;
	r.machine.vmm = own_path(self, sizeof(self));
	if (r.timeout_s) {
		end.it_value.tv_sec = r.timeout_s;
		deadline = now_ns() + r.timeout_s * 1000000000ull;
		r.machine.start_timeout_ms = r.timeout_s * 1000;
	}
	catch_signals();
	if (r.timeout_s)
		(void)setitimer(ITIMER_REAL, &end, NULL);
	status = fetch_image(&r);
	if (status) {
		run_options_finish(&r);
		return status;
	}
	if (roux_machine_create(&r.machine, &m, &error) < 0) {
		/* What it called may have been hit first and have failed of that. */
		status = stop ? interrupted(&r) : complain(EXIT_ROUX, "%s", error.message);
	} else {
		current = m;	/* before the flag is looked at: a signal is seen here or ends a wait */
		if (r.console)
			roux_machine_on_console(m, show_console, NULL);
		if (r.machine.gdb)
			roux_machine_on_gdb(m, tell_gdb, NULL);
		status = caught || (deadline && now_ns() >= deadline) ? interrupted(&r) : run_in(&r, m, deadline);
		current = NULL;
	}
	roux_machine_destroy(m);
	run_options_finish(&r);
	return status;
}
