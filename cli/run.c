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

#include "roux/roux.h"

#include <errno.h>
#include <getopt.h>
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

#define SHARES_MAX 14
#define ENV_MAX 256
#define DISKS_MAX 8

static const char help[] =
	"Usage: roux run [OPTIONS] IMAGE [--] [COMMAND [ARG...]]\n"
	"\n"
	"Boots IMAGE in a micro-VM, runs COMMAND (or the image's own) and exits with its\n"
	"status.  IMAGE is a folder with a root file system, an OCI image layout (folder or\n"
	"tar) or a docker-archive tar.  Writes to the root are thrown away.\n"
	"\n"
	"Options:\n"
	"  -e, --env NAME[=VALUE]    Set an environment variable (without VALUE: as it is here)\n"
	"  -w, --workdir DIR         Working directory of the command\n"
	"  -u, --user USER[:GROUP]   User, by name or number\n"
	"  -v, --volume HOST:GUEST[:ro]\n"
	"                            Share a host folder\n"
	"  -i, --interactive         Pass standard input to the command\n"
	"  -t, --tty                 Give the command a terminal\n"
	"      --entrypoint COMMAND  Replace the image's entrypoint\n"
	"      --hostname NAME       Host name of the guest\n"
	"      --read-only           Make the root file system read-only\n"
	"      --timeout SECONDS     End the machine after this time (status 124)\n"
	"      --cpus N              Virtual CPUs, 1 to 8 (default 1)\n"
	"      --memory SIZE         Memory such as 512M or 2G (default 512M)\n"
	"      --disk FILE[:ro|:cow] Attach a disk image: vda, vdb, ...\n"
	"      --engine NAME         auto, kvm or dbt (default auto)\n"
	"      --kernel FILE         bzImage or vmlinux instead of Debian's kernel\n"
	"      --append TEXT         Add to the kernel command line\n"
	"      --console             Show the guest's serial console on standard error\n"
	"      --json                Print start-up phases as JSON on standard error\n"
	"      --dbt-stats           Print what the translator counted, on standard error\n"
	"      --help                Print this text\n"
	"\n"
	"Exit status: the command's; 124 after --timeout, 125 when roux itself failed, 126\n"
	"and 127 when the command could not be run or found.\n";

#define COUNTERS_MAX 32

struct run {
	struct roux_options machine;
	struct roux_exec_options exec;
	struct roux_share shares[SHARES_MAX];
	struct roux_disk disks[DISKS_MAX];
	const char *env[ENV_MAX];
	unsigned nenv;
	const char *argv[1024];
	bool interactive, json, console, stats;
	unsigned timeout_s;
	char *owned[SHARES_MAX * 2 + DISKS_MAX + ENV_MAX];	/* strings made while parsing */
	unsigned nowned;
};

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

/* ------------------------------------------------------------------ options */

static char *own(struct run *r, char *text)
{
	if (text && r->nowned < sizeof(r->owned) / sizeof(r->owned[0]))
		r->owned[r->nowned++] = text;
	return text;
}

static int add_volume(struct run *r, const char *arg)
{
	char *host = own(r, strdup(arg)), *guest, *mode;
	struct roux_share *s = &r->shares[r->machine.nshares];

	if (r->machine.nshares == SHARES_MAX)
		return complain(EXIT_ROUX, "at most %d folders can be shared", SHARES_MAX);
	guest = host ? strchr(host, ':') : NULL;
	if (!guest || guest[1] != '/')
		return complain(EXIT_ROUX, "-v needs HOST:GUEST with an absolute GUEST, not '%s'", arg);
	*guest++ = '\0';
	mode = strrchr(guest, ':');
	if (mode && (strcmp(mode, ":ro") == 0 || strcmp(mode, ":rw") == 0)) {
		s->read_only = mode[2] == 'o';
		*mode = '\0';
	}
	s->host = host;
	s->guest = guest;
	r->machine.nshares++;
	return 0;
}

static int add_disk(struct run *r, const char *arg)
{
	char *path = own(r, strdup(arg)), *mode = path ? strrchr(path, ':') : NULL;
	struct roux_disk *d = &r->disks[r->machine.ndisks];

	if (r->machine.ndisks == DISKS_MAX || !path)
		return complain(EXIT_ROUX, "at most %d disks can be attached", DISKS_MAX);
	if (mode && (strcmp(mode, ":ro") == 0 || strcmp(mode, ":cow") == 0)) {
		d->read_only = mode[1] == 'r';
		d->overlay = mode[1] == 'c';
		*mode = '\0';
	}
	d->path = path;
	r->machine.ndisks++;
	return 0;
}

static int add_env(struct run *r, const char *arg)
{
	const char *value;
	char *text;

	if (r->nenv + 1 == ENV_MAX)
		return complain(EXIT_ROUX, "at most %d variables can be set", ENV_MAX - 1);
	if (strchr(arg, '=')) {
		r->env[r->nenv++] = arg;
		return 0;
	}
	value = getenv(arg);
	if (!value)
		return 0;	/* as docker: a name that is not set here is left out */
	if (asprintf(&text, "%s=%s", arg, value) < 0)
		return complain(EXIT_ROUX, "out of memory");
	r->env[r->nenv++] = own(r, text);
	return 0;
}

enum { OPT_ENGINE = 256, OPT_CPUS, OPT_MEMORY, OPT_KERNEL, OPT_APPEND, OPT_READ_ONLY, OPT_TIMEOUT, OPT_JSON,
       OPT_HELP, OPT_HOSTNAME, OPT_CONSOLE, OPT_DISK, OPT_ENTRYPOINT, OPT_STATS };

static const struct option options[] = {
	{ "env", required_argument, NULL, 'e' },
	{ "workdir", required_argument, NULL, 'w' },
	{ "user", required_argument, NULL, 'u' },
	{ "volume", required_argument, NULL, 'v' },
	{ "interactive", no_argument, NULL, 'i' },
	{ "tty", no_argument, NULL, 't' },
	{ "entrypoint", required_argument, NULL, OPT_ENTRYPOINT },
	{ "engine", required_argument, NULL, OPT_ENGINE },
	{ "cpus", required_argument, NULL, OPT_CPUS },
	{ "memory", required_argument, NULL, OPT_MEMORY },
	{ "kernel", required_argument, NULL, OPT_KERNEL },
	{ "append", required_argument, NULL, OPT_APPEND },
	{ "disk", required_argument, NULL, OPT_DISK },
	{ "hostname", required_argument, NULL, OPT_HOSTNAME },
	{ "read-only", no_argument, NULL, OPT_READ_ONLY },
	{ "timeout", required_argument, NULL, OPT_TIMEOUT },
	{ "console", no_argument, NULL, OPT_CONSOLE },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "dbt-stats", no_argument, NULL, OPT_STATS },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

static int parse_count(const char *what, const char *arg, unsigned min, unsigned max, unsigned *ret)
{
	char *end;
	unsigned long v = strtoul(arg, &end, 10);

	if (end == arg || *end || v < min || v > max)
		return complain(EXIT_ROUX, "%s must be a number from %u to %u, not '%s'", what, min, max, arg);
	*ret = (unsigned)v;
	return 0;
}

static int take_option(struct run *r, int c, const char **entrypoint)
{
	switch (c) {
	case 'e': return add_env(r, optarg);
	case 'w': r->exec.cwd = optarg; return 0;
	case 'u': r->exec.user = optarg; return 0;
	case 'v': return add_volume(r, optarg);
	case 'i': r->interactive = true; return 0;
	case 't': r->exec.tty = true; return 0;
	case OPT_ENTRYPOINT: *entrypoint = optarg; return 0;
	case OPT_ENGINE: r->machine.engine = optarg; return 0;
	case OPT_CPUS: return parse_count("--cpus", optarg, 1, 8, &r->machine.cpus);
	case OPT_MEMORY:
		if (!parse_size(optarg, &r->machine.memory))
			return complain(EXIT_ROUX, "--memory needs a size such as 512M or 2G, not '%s'", optarg);
		return 0;
	case OPT_KERNEL: r->machine.kernel = optarg; return 0;
	case OPT_APPEND: r->machine.append = optarg; return 0;
	case OPT_DISK: return add_disk(r, optarg);
	case OPT_HOSTNAME: r->machine.hostname = optarg; return 0;
	case OPT_READ_ONLY: r->machine.read_only = true; return 0;
	case OPT_TIMEOUT: return parse_count("--timeout", optarg, 1, 86400 * 30, &r->timeout_s);
	case OPT_CONSOLE: r->console = true; return 0;
	case OPT_JSON: r->json = true; return 0;
	case OPT_STATS: r->stats = true; return 0;
	default: return complain(EXIT_ROUX, "see 'roux run --help'");
	}
}

/* Fills @r.  0, a negative number when help was printed, or an exit status. */
static int parse(struct run *r, int argc, char **argv)
{
	const char *entrypoint = NULL;
	unsigned n = 0;
	int c, status;

	optind = 1;
	while ((c = getopt_long(argc, argv, "+e:w:u:v:it", options, NULL)) != -1) {
		if (c == OPT_HELP) {
			(void)fputs(help, stdout);
			return -1;
		}
		status = take_option(r, c, &entrypoint);
		if (status)
			return status;
	}
	if (optind == argc)
		return complain(EXIT_ROUX, "run needs an image; see 'roux run --help'");
	r->machine.image = argv[optind++];
	if (optind < argc && strcmp(argv[optind], "--") == 0)
		optind++;
	r->exec.use_entrypoint = !entrypoint;
	if (entrypoint)
		r->argv[n++] = entrypoint;
	for (; optind < argc; optind++) {
		if (n + 1 == sizeof(r->argv) / sizeof(r->argv[0]))
			return complain(EXIT_ROUX, "the command has too many arguments");
		r->argv[n++] = argv[optind];
	}
	r->machine.shares = r->shares;
	r->machine.disks = r->disks;
	r->exec.argv = r->argv;
	r->exec.env = r->env;
	return 0;
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
	double seconds = (double)(now_ns() - s->began_ns) / 1e9;

	s->i++;
	(void)fprintf(stderr, "%-12s %14llu %14llu %14.0f\n", name, (unsigned long long)before,
		      (unsigned long long)(value - before), (double)(value - before) / seconds);
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

static int wait_process(struct run *r, struct roux_machine *m, struct roux_process *p, uint64_t deadline)
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
static int interrupted(const struct run *r)
{
	if (caught)
		return 128 + caught;
	return complain(EXIT_TIMEOUT, "the command was not running within %u s; the machine was stopped", r->timeout_s);
}

static int run_in(struct run *r, struct roux_machine *m, uint64_t deadline)
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
	static struct run r;
	struct roux_machine *m = NULL;
	struct roux_error error = { 0 };
	struct itimerval end = { 0 };
	uint64_t deadline = 0;
	char self[4096];
	int status;

	r.machine.size = sizeof(r.machine);
	r.exec.size = sizeof(r.exec);
	status = parse(&r, argc, argv);
	if (status)
		return status < 0 ? 0 : status;
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
	if (roux_machine_create(&r.machine, &m, &error) < 0) {
		/* What it called may have been hit first and have failed of that. */
		status = stop ? interrupted(&r) : complain(EXIT_ROUX, "%s", error.message);
	} else {
		current = m;	/* before the flag is looked at: a signal is seen here or ends a wait */
		if (r.console)
			roux_machine_on_console(m, show_console, NULL);
		status = caught || (deadline && now_ns() >= deadline) ? interrupted(&r) : run_in(&r, m, deadline);
		current = NULL;
	}
	roux_machine_destroy(m);
	for (unsigned i = 0; i < r.nowned; i++)
		free(r.owned[i]);
	return status;
}
