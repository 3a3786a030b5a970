/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/options.h"

#include "cli/cli.h"

#include <ctype.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
	"Usage: roux run [OPTIONS] IMAGE [--] [COMMAND [ARG...]]\n"
	"\n"
	"Boots IMAGE in a micro-VM, runs COMMAND (or the image's own) and exits with its\n"
	"status.  IMAGE is a name such as alpine:3, pulled when it is not in the store; or the\n"
	"path of a folder with a root file system, an OCI image layout (folder or tar) or a\n"
	"docker-archive tar.  Writes to the root are thrown away.\n"
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
	"      --network NET         none (default) or tap=NAME[,ADDRESS/BITS][,GATEWAY]...\n"
	"                            with addresses for the guest's end of a TAP device\n"
	"      --pcap FILE           Write what passes the network to FILE\n"
	"      --hostname NAME       Host name of the guest\n"
	"      --pull WHEN           Fetch the image: missing, always or never (default missing)\n"
	"      --insecure            Fetch it without encryption or with unknown certificates too\n"
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
	"      --gdb PORT            Let GDB debug the guest through 127.0.0.1:PORT (0: a free\n"
	"                            one, told on standard error)\n"
	"      --gdb-wait            Start when GDB says so (needs --gdb)\n"
	"      --help                Print this text\n"
	"\n"
	"Exit status: the command's; 124 after --timeout, 125 when roux itself failed, 126\n"
	"and 127 when the command could not be run or found.\n";

static char *own(struct run_options *r, char *text)
{
	if (text && r->nowned < sizeof(r->owned) / sizeof(r->owned[0]))
		r->owned[r->nowned++] = text;
	return text;
}

static int add_volume(struct run_options *r, const char *arg)
{
	char *host = own(r, strdup(arg)), *guest, *mode;
	struct roux_share *s = &r->shares[r->machine.nshares];

	if (r->machine.nshares == RUN_SHARES_MAX)
		return complain(EXIT_ROUX, "at most %d folders can be shared", RUN_SHARES_MAX);
	guest = host ? strchr(host, ':') : NULL;
	if (!guest || guest == host || guest[1] != '/')
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

static int add_disk(struct run_options *r, const char *arg)
{
	char *path = own(r, strdup(arg)), *mode = path ? strrchr(path, ':') : NULL;
	struct roux_disk *d = &r->disks[r->machine.ndisks];

	if (r->machine.ndisks == RUN_DISKS_MAX || !path)
		return complain(EXIT_ROUX, "at most %d disks can be attached", RUN_DISKS_MAX);
	if (mode && (strcmp(mode, ":ro") == 0 || strcmp(mode, ":cow") == 0)) {
		d->read_only = mode[1] == 'r';
		d->overlay = mode[1] == 'c';
		*mode = '\0';
	}
	d->path = path;
	r->machine.ndisks++;
	return 0;
}

static int add_env(struct run_options *r, const char *arg)
{
	const char *value;
	char *text;

	if (r->nenv + 1 == RUN_ENV_MAX)
		return complain(EXIT_ROUX, "at most %d variables can be set", RUN_ENV_MAX - 1);
	if (!*arg || *arg == '=')
		return complain(EXIT_ROUX, "-e needs NAME or NAME=VALUE, not '%s'", arg);
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
       OPT_HELP, OPT_HOSTNAME, OPT_CONSOLE, OPT_DISK, OPT_ENTRYPOINT, OPT_STATS, OPT_GDB,
       OPT_GDB_WAIT, OPT_NETWORK, OPT_PCAP, OPT_PULL, OPT_INSECURE };

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
	{ "pull", required_argument, NULL, OPT_PULL },
	{ "insecure", no_argument, NULL, OPT_INSECURE },
	{ "read-only", no_argument, NULL, OPT_READ_ONLY },
	{ "timeout", required_argument, NULL, OPT_TIMEOUT },
	{ "console", no_argument, NULL, OPT_CONSOLE },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "dbt-stats", no_argument, NULL, OPT_STATS },
	{ "gdb", required_argument, NULL, OPT_GDB },
	{ "gdb-wait", no_argument, NULL, OPT_GDB_WAIT },
	{ "network", required_argument, NULL, OPT_NETWORK },
	{ "pcap", required_argument, NULL, OPT_PCAP },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

static int parse_count(const char *what, const char *arg, unsigned min, unsigned max, unsigned *ret)
{
	char *end;
	unsigned long v = strtoul(arg, &end, 10);

	if (!isdigit((unsigned char)*arg) || *end || v < min || v > max)
		return complain(EXIT_ROUX, "%s must be a number from %u to %u, not '%s'", what, min, max, arg);
	*ret = (unsigned)v;
	return 0;
}

static int take_gdb_port(struct run_options *r, const char *arg)
{
	unsigned port = 0;
	int status = parse_count("--gdb", arg, 0, UINT16_MAX, &port);

	r->machine.gdb = true;
	r->machine.gdb_port = (uint16_t)port;
	return status;
}

/* none, or tap=NAME[,ADDRESS/BITS][,GATEWAY] with addresses of either family. */
static int take_network(struct run_options *r, const char *arg)
{
	char *text = own(r, strdup(arg)), *part, *save = NULL;

	r->machine.nnetworks = 0;
	if (strcmp(arg, "none") == 0)
		return 0;
	if (strncmp(arg, "tap=", 4) != 0 || !text)
		return complain(EXIT_ROUX, "--network is none or tap=NAME, not '%s'", arg);
	r->machine.nnetworks = 1;
	r->network.kind = ROUX_NETWORK_TAP;
	r->network.name = strtok_r(text + 4, ",", &save);
	while ((part = strtok_r(NULL, ",", &save))) {
		if (strchr(part, '/'))
			*(strchr(part, ':') ? &r->network.address6 : &r->network.address4) = part;
		else
			*(strchr(part, ':') ? &r->network.gateway6 : &r->network.gateway4) = part;
	}
	return r->network.name ? 0 : complain(EXIT_ROUX, "--network tap= needs the name of a TAP device");
}

static int take_pull(struct run_options *r, const char *arg)
{
	if (strcmp(arg, "missing") == 0)
		r->machine.pull = ROUX_PULL_MISSING;
	else if (strcmp(arg, "always") == 0)
		r->machine.pull = ROUX_PULL_ALWAYS;
	else if (strcmp(arg, "never") == 0)
		r->machine.pull = ROUX_PULL_NEVER;
	else
		return complain(EXIT_ROUX, "--pull is missing, always or never, not '%s'", arg);
	return 0;
}

static int take_option(struct run_options *r, int c, const char **entrypoint)
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
	case OPT_PULL: return take_pull(r, optarg);
	case OPT_INSECURE: r->machine.insecure_registry = true; return 0;
	case OPT_READ_ONLY: r->machine.read_only = true; return 0;
	case OPT_TIMEOUT: return parse_count("--timeout", optarg, 1, 86400 * 30, &r->timeout_s);
	case OPT_CONSOLE: r->console = true; return 0;
	case OPT_JSON: r->json = true; return 0;
	case OPT_STATS: r->stats = true; return 0;
	case OPT_NETWORK: return take_network(r, optarg);
	case OPT_PCAP: r->network.pcap = optarg; return 0;
	case OPT_GDB: return take_gdb_port(r, optarg);
	case OPT_GDB_WAIT: r->machine.gdb_wait = true; return 0;
	default: return complain(EXIT_ROUX, "see 'roux run --help'");
	}
}

int run_options_parse(struct run_options *r, int argc, char **argv)
{
	const char *entrypoint = NULL;
	unsigned n = 0;
	int c, status;

	*r = (struct run_options){ .machine.size = sizeof(r->machine), .exec.size = sizeof(r->exec) };
	optind = 0;	/* GNU: begin anew, also inside a word such as -it */
	while ((c = getopt_long(argc, argv, "+e:w:u:v:it", options, NULL)) != -1) {
		if (c == OPT_HELP) {
			(void)fputs(help, stdout);
			return -1;
		}
		status = take_option(r, c, &entrypoint);
		if (status)
			return status;
	}
	if (r->machine.gdb_wait && !r->machine.gdb)
		return complain(EXIT_ROUX, "--gdb-wait needs --gdb PORT");
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
	r->machine.networks = &r->network;
	r->machine.shares = r->shares;
	r->machine.disks = r->disks;
	r->exec.argv = r->argv;
	r->exec.env = r->env;
	return 0;
}

void run_options_finish(struct run_options *r)
{
	for (unsigned i = 0; i < r->nowned; i++)
		free(r->owned[i]);
	r->nowned = 0;
}
