/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/options.h"

#include "cli/cli.h"
#include "os/signame.h"
#include "life/when.h"
#include "machine/networks.h"
#include "os/publish.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char run_usage[] =
	"Usage: roux run [OPTIONS] IMAGE [--] [COMMAND [ARG...]]\n"
	"\n"
	"Boots IMAGE in a micro-VM, runs COMMAND (or the image's own) and exits with its\n"
	"status.\n";

static const char create_usage[] =
	"Usage: roux create [OPTIONS] IMAGE [--] [COMMAND [ARG...]]\n"
	"\n"
	"Makes a micro-VM of IMAGE for COMMAND (or the image's own) and prints its id; 'roux\n"
	"start' starts it.  Options are those of 'roux run'.\n";

static const char help[] =
	"\n"
	"IMAGE is a name such as alpine:3, pulled when it is not in the store; or the path of a\n"
	"folder with a root file system, an OCI image layout (folder or tar) or a\n"
	"docker-archive tar.  Writes to the root are thrown away.\n"
	"\n"
	"Options:\n"
	"  -d, --detach              Run in the background and print the VM's id\n"
	"      --name NAME           Name of the VM (default: a random one)\n"
	"      --rm                  Remove the VM when it ends\n"
	"      --restart POLICY      no, on-failure[:N], always or unless-stopped\n"
	"  -l, --label KEY=VALUE     Attach a label\n"
	"      --cidfile FILE        Write the VM's id to a new file\n"
	"      --stop-signal SIGNAL  What asks the command to stop (default: the image's)\n"
	"      --stop-timeout SECONDS\n"
	"                            Until a stop becomes a kill (default 10)\n"
	"      --health-cmd COMMAND  Check health with a shell command in the guest\n"
	"      --health-interval DURATION\n"
	"                            Time between checks (default: the image's, else 30s)\n"
	"      --health-timeout DURATION\n"
	"                            After which a check has failed (default as above)\n"
	"      --health-start-period DURATION\n"
	"                            In which failures do not count (default 0s)\n"
	"      --health-retries N    Failures in a row that mean unhealthy\n"
	"      --no-healthcheck      Do not check, whatever the image says\n"
	"      --detach-keys KEYS    Leave the VM running with these (default ctrl-p,ctrl-q)\n"
	"      --log-max-size SIZE   Output kept for 'roux logs' (default 64M)\n"
	"      --cpu-shares N        Weight among VMs when CPUs are short (default 1024)\n"
	"  -e, --env NAME[=VALUE]    Set an environment variable (without VALUE: as it is here)\n"
	"  -w, --workdir DIR         Working directory of the command\n"
	"  -u, --user USER[:GROUP]   User, by name or number\n"
	"  -v, --volume HOST:GUEST[:ro]\n"
	"                            Share a host folder\n"
	"  -i, --interactive         Pass standard input to the command\n"
	"  -t, --tty                 Give the command a terminal\n"
	"      --entrypoint COMMAND  Replace the image's entrypoint\n"
	"  -p, --publish [ADDR:]HOST:GUEST[/udp]\n"
	"                            Let a port of the host (any, if not given) lead to one of\n"
	"                            the guest\n"
	"      --network NET         none, user (default), a network of 'roux network', or\n"
	"                            tap=NAME[,ADDRESS/BITS][,GATEWAY]... with addresses for the\n"
	"                            guest's end of a TAP device\n"
	"      --egress RULE         What the guest may reach, first match: allow|deny\n"
	"                            any|ADDRESS[/BITS]|NAME|*.NAME [tcp|udp|icmp] [PORT[-PORT]]\n"
	"      --host-loopback       Let the guest reach 127.0.0.1 here as host.roux.internal\n"
	"      --upload RATE         At most so many bits per second leave the guest: 20M; or\n"
	"                            frames: 5000pps.  May be given for each\n"
	"      --download RATE       The same for what it receives\n"
	"      --pcap FILE           Write what passes the network to FILE\n"
	"  -h, --hostname NAME       Host name of the guest\n"
	"      --pull WHEN           Fetch the image: missing, always or never (default missing)\n"
	"      --insecure            Fetch it without encryption or with unknown certificates too\n"
	"      --read-only           Make the root file system read-only\n"
	"      --no-template         Boot, even when a machine of this kind was saved when it had booted\n"
	"      --timeout SECONDS     End the machine after this time (status 124)\n"
	"      --cpus N              Virtual CPUs, 1 to 8 (default 1)\n"
	"      --memory SIZE         Memory such as 512M or 2G (default 512M)\n"
	"      --merge-memory        Let the host keep one copy of what other such machines have too (KSM)\n"
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

#define LOG_MAX_MIN (256u << 10) /* bytes */

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
	char *pair;
	int status;

	if (r->nenv + 1 == RUN_ENV_MAX)
		return complain(EXIT_ROUX, "at most %d variables can be set", RUN_ENV_MAX - 1);
	status = take_env(arg, &pair);
	if (pair)
		r->env[r->nenv++] = own(r, pair);
	return status;
}

enum { OPT_ENGINE = 256, OPT_CPUS, OPT_MEMORY, OPT_KERNEL, OPT_APPEND, OPT_READ_ONLY, OPT_NO_TEMPLATE, OPT_MERGE, OPT_TIMEOUT, OPT_JSON,
       OPT_HELP, OPT_CONSOLE, OPT_DISK, OPT_ENTRYPOINT, OPT_STATS, OPT_GDB,
       OPT_GDB_WAIT, OPT_NETWORK, OPT_EGRESS, OPT_HOST_LOOPBACK, OPT_UPLOAD, OPT_DOWNLOAD, OPT_PCAP, OPT_PULL, OPT_INSECURE, OPT_NAME, OPT_RM, OPT_RESTART, OPT_CIDFILE,
       OPT_STOP_SIGNAL, OPT_STOP_TIMEOUT, OPT_HEALTH_CMD,
       OPT_HEALTH_INTERVAL, OPT_HEALTH_TIMEOUT, OPT_HEALTH_START, OPT_HEALTH_RETRIES, OPT_NO_HEALTH, OPT_DETACH_KEYS,
       OPT_LOG_MAX, OPT_CPU_SHARES };

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
	{ "hostname", required_argument, NULL, 'h' },
	{ "detach", no_argument, NULL, 'd' },
	{ "name", required_argument, NULL, OPT_NAME },
	{ "rm", no_argument, NULL, OPT_RM },
	{ "restart", required_argument, NULL, OPT_RESTART },
	{ "label", required_argument, NULL, 'l' },
	{ "publish", required_argument, NULL, 'p' },
	{ "cidfile", required_argument, NULL, OPT_CIDFILE },
	{ "stop-signal", required_argument, NULL, OPT_STOP_SIGNAL },
	{ "stop-timeout", required_argument, NULL, OPT_STOP_TIMEOUT },
	{ "health-cmd", required_argument, NULL, OPT_HEALTH_CMD },
	{ "health-interval", required_argument, NULL, OPT_HEALTH_INTERVAL },
	{ "health-timeout", required_argument, NULL, OPT_HEALTH_TIMEOUT },
	{ "health-start-period", required_argument, NULL, OPT_HEALTH_START },
	{ "health-retries", required_argument, NULL, OPT_HEALTH_RETRIES },
	{ "no-healthcheck", no_argument, NULL, OPT_NO_HEALTH },
	{ "detach-keys", required_argument, NULL, OPT_DETACH_KEYS },
	{ "log-max-size", required_argument, NULL, OPT_LOG_MAX },
	{ "cpu-shares", required_argument, NULL, OPT_CPU_SHARES },
	{ "pull", required_argument, NULL, OPT_PULL },
	{ "insecure", no_argument, NULL, OPT_INSECURE },
	{ "read-only", no_argument, NULL, OPT_READ_ONLY },
	{ "no-template", no_argument, NULL, OPT_NO_TEMPLATE },
	{ "merge-memory", no_argument, NULL, OPT_MERGE },
	{ "timeout", required_argument, NULL, OPT_TIMEOUT },
	{ "console", no_argument, NULL, OPT_CONSOLE },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "dbt-stats", no_argument, NULL, OPT_STATS },
	{ "gdb", required_argument, NULL, OPT_GDB },
	{ "gdb-wait", no_argument, NULL, OPT_GDB_WAIT },
	{ "network", required_argument, NULL, OPT_NETWORK },
	{ "egress", required_argument, NULL, OPT_EGRESS },
	{ "host-loopback", no_argument, NULL, OPT_HOST_LOOPBACK },
	{ "upload", required_argument, NULL, OPT_UPLOAD },
	{ "download", required_argument, NULL, OPT_DOWNLOAD },
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

static int keep(struct strings *list, const char *text)
{
	return strings_add(list, text) < 0 ? complain(EXIT_ROUX, "out of memory") : 0;
}

/* One of the host that nobody has, of the kernel's choice. */
static bool free_port(struct publish *p)
{
	struct sockaddr_in6 at = { .sin6_family = AF_INET6 };
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET6, (p->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	bool done;

	if (fd < 0) {	/* a host without IPv6; the port is in the same place */
		at.sin6_family = AF_INET;
		len = sizeof(struct sockaddr_in);
		fd = socket(AF_INET, (p->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	}
	if (fd < 0)
		return false;
	done = bind(fd, (struct sockaddr *)&at, len) == 0 && getsockname(fd, (struct sockaddr *)&at, &len) == 0;
	p->host = ntohs(at.sin6_port);
	(void)close(fd);
	return done;
}

/* Without a port of the host it gets one that is free now, so that people can be told which. */
static int take_publish(struct vm_config *c, const char *arg)
{
	char text[PUBLISH_ADDRESS_MAX + 32];
	struct publish p;

	if (!publish_parse(arg, &p))
		return complain(EXIT_ROUX, "-p is [ADDRESS:]HOST:GUEST[/tcp|/udp], not '%s'", arg);
	if (!p.host && !free_port(&p))
		return complain(EXIT_ROUX, "-p %s: no free port: %s", arg, strerror(errno));
	(void)publish_format(&p, text, sizeof(text));
	return keep(&c->publish, text);
}

/* "10M" bits or "500pps" frames a second, with K, M and G. */
static int take_rate(const char *what, const char *arg, uint64_t *ret_bytes, uint64_t *ret_frames)
{
	static const char units[] = "KMG";
	const char *unit;
	uint64_t factor = 1;
	char *end;
	double v = strtod(arg, &end);

	unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
	for (long i = unit ? unit - units : -1; i >= 0; i--)
		factor *= 1000;
	end += unit != NULL;
	if (!isdigit((unsigned char)*arg) || (*end && strcmp(end, "pps") != 0) || v * (double)factor < 8 || v > 1e15)
		return complain(EXIT_ROUX, "%s needs bits per second such as 20M, or frames such as 5000pps, not '%s'", what,
				arg);
	if (*end)
		*ret_frames = (uint64_t)(v * (double)factor);
	else
		*ret_bytes = (uint64_t)(v * (double)factor / 8);
	return 0;
}

/* A duration of at least a millisecond, as health checks have them. */
static int parse_span(const char *what, const char *arg, int64_t *ret_ms)
{
	int64_t ns;

	if (!span_parse(arg, &ns) || (ns && ns < 1000000))
		return complain(EXIT_ROUX, "%s needs a time such as 30s or 1m30s, not '%s'", what, arg);
	*ret_ms = ns / 1000000;
	return 0;
}

static int take_stop_signal(struct vm_config *c, const char *arg)
{
	int signo = signal_by_name(arg);

	if (signo < 0)
		return complain(EXIT_ROUX, "--stop-signal: there is no signal '%s'", arg);
	c->stop_signal = (uint32_t)signo;
	return 0;
}

static int take_health_cmd(struct vm_config *c, const char *kind, const char *command)
{
	strings_finish(&c->health_cmd);
	return keep(&c->health_cmd, kind) || (command && keep(&c->health_cmd, command)) ? EXIT_ROUX : 0;
}

static int take_label(struct vm_config *c, const char *arg)
{
	if (!*arg || *arg == '=')
		return complain(EXIT_ROUX, "--label needs KEY or KEY=VALUE, not '%s'", arg);
	return keep(&c->labels, arg);
}

/* What is about the life of the VM rather than the machine. */
static int take_life_option(struct vm_config *c, int option)
{
	unsigned seconds;
	int status;

	switch (option) {
	case 'l': return take_label(c, optarg);
	case 'p': return take_publish(c, optarg);
	case OPT_EGRESS: return keep(&c->egress, optarg);
	case OPT_HOST_LOOPBACK: c->host_loopback = true; return 0;
	case OPT_RM: c->auto_remove = true; return 0;
	case OPT_RESTART:
		if (!vm_restart_parse(optarg, &c->restart, &c->restart_max))
			return complain(EXIT_ROUX, "--restart is no, on-failure[:N], always or unless-stopped, not '%s'", optarg);
		return 0;
	case OPT_STOP_SIGNAL: return take_stop_signal(c, optarg);
	case OPT_STOP_TIMEOUT:
		status = parse_count("--stop-timeout", optarg, 0, 86400 * 30, &seconds);
		c->stop_timeout_ms = status ? -1 : (int64_t)seconds * 1000;
		return status;
	case OPT_HEALTH_CMD: return take_health_cmd(c, "CMD-SHELL", optarg);
	case OPT_NO_HEALTH: return take_health_cmd(c, "NONE", NULL);
	case OPT_HEALTH_INTERVAL: return parse_span("--health-interval", optarg, &c->health_interval_ms);
	case OPT_HEALTH_TIMEOUT: return parse_span("--health-timeout", optarg, &c->health_timeout_ms);
	case OPT_HEALTH_START: return parse_span("--health-start-period", optarg, &c->health_start_ms);
	case OPT_HEALTH_RETRIES: return parse_count("--health-retries", optarg, 1, 1000, &c->health_retries);
	case OPT_LOG_MAX:
		if (!parse_size(optarg, &c->log_max) || c->log_max < LOG_MAX_MIN)
			return complain(EXIT_ROUX, "--log-max-size needs a size of at least 256K, not '%s'", optarg);
		return 0;
	case OPT_CPU_SHARES: return parse_count("--cpu-shares", optarg, 2, 262144, &c->cpu_shares);
	default: return complain(EXIT_ROUX, "see 'roux run --help'");
	}
}

/* none, user, the name of a network, or tap=NAME[,ADDRESS/BITS][,GATEWAY] with addresses of either family. */
static int take_network(struct run_options *r, const char *arg)
{
	char *text = own(r, strdup(arg)), *part, *save = NULL;

	r->machine.nnetworks = 1;
	r->network.kind = ROUX_NETWORK_USER;
	if (strcmp(arg, "none") == 0)
		r->machine.nnetworks = 0;
	if (strcmp(arg, "none") == 0 || strcmp(arg, "user") == 0)
		return 0;
	if (network_name_valid(arg)) {
		r->network.kind = ROUX_NETWORK_NAMED;
		r->network.name = arg;
		return 0;
	}
	if (strncmp(arg, "tap=", 4) != 0 || !text)
		return complain(EXIT_ROUX, "--network is none, user, tap=NAME or a network of 'roux network', not '%s'", arg);
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
	case 'h': r->machine.hostname = optarg; return 0;
	case OPT_PULL: return take_pull(r, optarg);
	case OPT_INSECURE: r->machine.insecure_registry = true; return 0;
	case OPT_READ_ONLY: r->machine.read_only = true; return 0;
	case OPT_NO_TEMPLATE: r->machine.no_template = true; return 0;
	case OPT_MERGE: r->machine.merge_memory = true; return 0;
	case OPT_TIMEOUT: return parse_count("--timeout", optarg, 1, 86400 * 30, &r->timeout_s);
	case OPT_CONSOLE: r->console = true; return 0;
	case OPT_JSON: r->json = true; return 0;
	case OPT_STATS: r->stats = true; return 0;
	case OPT_UPLOAD: return take_rate("--upload", optarg, &r->network.send_bytes, &r->network.send_frames);
	case OPT_DOWNLOAD: return take_rate("--download", optarg, &r->network.receive_bytes, &r->network.receive_frames);
	case OPT_NETWORK: return take_network(r, optarg);
	case OPT_PCAP: r->network.pcap = optarg; return 0;
	case OPT_GDB: return take_gdb_port(r, optarg);
	case OPT_GDB_WAIT: r->machine.gdb_wait = true; return 0;
	case 'd': r->detach = true; return 0;
	case OPT_NAME: r->name = optarg; return 0;
	case OPT_CIDFILE: r->cidfile = optarg; return 0;
	case OPT_DETACH_KEYS: r->detach_keys = optarg; return 0;
	default: return take_life_option(&r->life, c);
	}
}

int run_options_parse(struct run_options *r, int argc, char **argv)
{
	const char *entrypoint = NULL;
	unsigned n = 0;
	int c, status;

	*r = (struct run_options){ .machine.size = sizeof(r->machine), .exec.size = sizeof(r->exec),
				  .machine.nnetworks = 1, .life.stop_timeout_ms = -1 };
	optind = 0;	/* GNU: begin anew, also inside a word such as -it */
	while ((c = getopt_long(argc, argv, "+e:w:u:v:itdh:l:p:", options, NULL)) != -1) {
		if (c == OPT_HELP) {
			(void)fputs(strcmp(argv[0], "create") == 0 ? create_usage : run_usage, stdout);
			(void)fputs(help, stdout);
			return -1;
		}
		status = take_option(r, c, &entrypoint);
		if (status)
			return status;
	}
	if (r->machine.gdb_wait && !r->machine.gdb)
		return complain(EXIT_ROUX, "--gdb-wait needs --gdb PORT");
	if (r->life.auto_remove && r->life.restart != VM_RESTART_NO)
		return complain(EXIT_ROUX, "--rm and --restart exclude each other");
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
	strings_finish(&r->life.labels);
	strings_finish(&r->life.publish);
	strings_finish(&r->life.egress);
	strings_finish(&r->life.health_cmd);
}
