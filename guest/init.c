/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of a guest's init:
 *
 *   read /roux.conf -> load /modules/order -> mount the root over /newroot
 *     -> make it "/" -> kernel file systems -> mounts of the configuration
 *     -> connect to the host (ready) -> serve -> kill, sync, power off
 *
 * Every file of the initramfs is unlinked once used, so that its memory is free
 * when the root is switched.  A boot that fails says why on the console and to
 * the host, then switches off: there is nobody in the guest to repair it.
 */
#include "guest/init.h"

#include "abi/agent.h"
#include "base/checked.h"
#include "guest/conf.h"
#include "guest/etc.h"
#include "guest/files.h"
#include "guest/freeze.h"
#include "guest/identity.h"
#include "guest/network.h"
#include "guest/server.h"
#include "guest/session.h"
#include "guest/text.h"
#include "guest/vsock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEVICE_WAIT_MS 5000 /* for a device that the kernel has yet to find */
#define REFUSE_WAIT_MS 1000 /* for the host to read why the boot failed */
#define NEW_ROOT "/newroot"

static void sleep_ms(unsigned ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	(void)nanosleep(&t, NULL);
}

static int64_t now_ms(void)
{
	struct timespec t = { 0 };

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Sleeps a little; false when @deadline_ms has passed.  Keeps errno. */
static bool wait_more(int64_t deadline_ms)
{
	int error = errno;

	if (now_ms() >= deadline_ms)
		return false;
	sleep_ms(1);
	errno = error;
	return true;
}

__attribute__((noreturn)) static void power(uint32_t how)
{
	sync();
	(void)reboot(how == AGENT_POWER_REBOOT ? RB_AUTOBOOT : RB_POWER_OFF);
	/* A machine without power control: stop here, the host sees it idle. */
	(void)reboot(RB_HALT_SYSTEM);
	for (;;)
		pause();
}

__attribute__((noreturn)) static void boot_failed(const char *what, const char *name, int error)
{
	struct text message = { .len = 0 };
	int fd;

	text_add(&message, what);
	if (name) {
		text_add(&message, " '");
		text_add(&message, name);
		text_add(&message, "'");
	}
	if (error)
		text_add_errno(&message, error);
	say(message.str, 0);
	(void)signal(SIGPIPE, SIG_IGN);
	fd = vsock_connect_host(AGENT_READY_PORT);
	if (fd >= 0)
		session_refuse(fd, error ? error : EINVAL, message.str, REFUSE_WAIT_MS);
	power(AGENT_POWER_OFF);
}

/* ---- configuration ---- */

static void read_conf(struct conf *ret_conf)
{
	static char text[GUEST_CONF_SIZE_MAX + 1];
	struct text where = { .len = 0 };
	ssize_t len = file_read(GUEST_CONF_PATH, text, sizeof(text));
	int line;

	if (len < 0 && errno != ENOENT)
		boot_failed("cannot read", GUEST_CONF_PATH, errno);
	if (len == sizeof(text))
		boot_failed("too long:", GUEST_CONF_PATH, 0);
	line = conf_parse(text, len > 0 ? (size_t)len : 0, ret_conf);
	if (line) {
		text_add(&where, "line ");
		text_add_num(&where, (uint64_t)line);
		boot_failed("malformed " GUEST_CONF_PATH ",", where.str, 0);
	}
	(void)unlink(GUEST_CONF_PATH);
}

/* ---- modules ---- */

static void load_module(const char *name)
{
	struct text path = { .len = 0 };
	struct text message = { .len = 0 };
	int fd;

	text_add(&path, GUEST_MODULES_DIR "/");
	text_add(&path, name);
	fd = open(path.str, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && (syscall(SYS_finit_module, fd, "", 0) == 0 || errno == EEXIST))
		goto loaded;
	/* Not fatal: whether it is missed shows when its device is used. */
	text_add(&message, "cannot load module ");
	text_add(&message, name);
	say(message.str, errno);
loaded:
	if (fd >= 0)
		close(fd);
	(void)unlink(path.str);
}

static void load_modules(void)
{
	static char order[8192];
	ssize_t len = file_read(GUEST_MODULES_ORDER, order, sizeof(order) - 1);
	char *name, *end;

	if (len <= 0)
		return;	/* a kernel with everything built in */
	order[len] = '\0';
	for (name = order; *name; name = end) {
		end = name + strcspn(name, "\n");
		if (*end)
			*end++ = '\0';
		if (*name)
			load_module(name);
	}
	(void)unlink(GUEST_MODULES_ORDER);
	(void)rmdir(GUEST_MODULES_DIR);
}

/* ---- root ---- */

/* mount(2), tried again while the device is not there yet. */
static int mount_when_there(const char *source, const char *target, const char *type,
			    unsigned long flags)
{
	int64_t deadline = now_ms() + DEVICE_WAIT_MS;

	for (;;) {
		if (mount(source, target, type, flags, NULL) == 0)
			return 0;
		/* virtio-fs: EINVAL for a tag without device.  Block: ENOENT, ENXIO. */
		if ((errno != EINVAL && errno != ENOENT && errno != ENXIO) || !wait_more(deadline))
			return -1;
	}
}

static void mount_overlay(const struct conf *conf)
{
	struct text options = { .len = 0 };

	text_add(&options, "mode=755");
	if (conf->overlay_size) {
		text_add(&options, ",size=");
		text_add(&options, conf->overlay_size);
	}
	if (mkdir("/upper", 0755) < 0 || mount("tmpfs", "/upper", "tmpfs", 0, options.str) < 0 ||
	    mkdir("/upper/data", 0755) < 0 || mkdir("/upper/work", 0755) < 0)
		boot_failed("cannot make the writable layer", NULL, errno);
	if (mount("overlay", NEW_ROOT, "overlay", 0,
		  "lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work") < 0)
		boot_failed("cannot put the writable layer over the root", NULL, errno);
}

static void mount_root(const struct conf *conf)
{
	const char *base = conf->overlay ? "/lower" : NEW_ROOT;
	unsigned long flags = conf->overlay || conf->readonly ? MS_RDONLY : 0;
	const char *type = conf->root_fstype;

	if (conf->root == CONF_ROOT_VIRTIOFS)
		type = "virtiofs";
	if (conf->root == CONF_ROOT_BLK && mount("dev", "/dev", "devtmpfs", 0, NULL) < 0)
		boot_failed("cannot mount /dev", NULL, errno);
	if (mkdir(NEW_ROOT, 0755) < 0 || (conf->overlay && mkdir(base, 0755) < 0))
		boot_failed("cannot make the root's mount point", NULL, errno);
	if (mount_when_there(conf->root_source, base, type, flags) < 0)
		boot_failed("cannot mount the root", conf->root_source, errno);
	if (conf->overlay)
		mount_overlay(conf);
}

static void switch_root(void)
{
	(void)umount2("/dev", MNT_DETACH);
	(void)unlink("/init");
	if (chdir(NEW_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		boot_failed("cannot switch to the root", NULL, errno);
}

/* ---- the machine ---- */

static const struct {
	const char *type, *target, *options;
	unsigned long flags;
} kernel_mounts[] = {
	{ "proc", "/proc", "", MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "sysfs", "/sys", "", MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "cgroup2", "/sys/fs/cgroup", "", MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "devtmpfs", "/dev", "mode=755", MS_NOSUID },
	{ "devpts", "/dev/pts", "gid=5,mode=620,ptmxmode=666", MS_NOSUID | MS_NOEXEC },
	{ "tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV },
	{ "mqueue", "/dev/mqueue", "", MS_NOSUID | MS_NODEV | MS_NOEXEC },
};

/* What programs expect in /dev beyond the kernel's own nodes. */
static const char *const dev_links[][2] = {
	{ "/proc/self/fd", "/dev/fd" },
	{ "/proc/self/fd/0", "/dev/stdin" },
	{ "/proc/self/fd/1", "/dev/stdout" },
	{ "/proc/self/fd/2", "/dev/stderr" },
};

static void mount_kernel_file_systems(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(kernel_mounts); i++) {
		const char *target = kernel_mounts[i].target;

		/* A kernel or a read-only image may lack some: programs will say so. */
		if (file_mkdirs(target, 0755) < 0)
			continue;
		(void)mount(kernel_mounts[i].type, target, kernel_mounts[i].type,
			    kernel_mounts[i].flags, kernel_mounts[i].options);
	}
	for (size_t i = 0; i < ARRAY_SIZE(dev_links); i++)
		(void)symlink(dev_links[i][0], dev_links[i][1]);
}

static void mount_configured(const struct conf *conf)
{
	for (unsigned i = 0; i < conf->nmounts; i++) {
		const struct conf_mount *m = &conf->mount[i];
		bool tmpfs = strcmp(m->type, "tmpfs") == 0;
		struct mount_request req = {
			.type = m->type,
			.source = tmpfs ? "tmpfs" : m->source,
			.target = m->target,
			.options = tmpfs ? m->source : "",
			.flags = m->readonly ? AGENT_MOUNT_RDONLY : 0,
		};

		if (file_mount(&req) < 0)
			boot_failed("cannot mount", m->target, errno);
	}
}

/*
 * What the kernel does in case somebody wants to know, or for machines that run for months: a guest that has nothing
 * to do should not have its host wake up for it, which may have a thousand of them.
 */
static void be_quiet(void)
{
	static const char *const settings[][2] = {
		{ "/proc/sys/vm/stat_interval", "120" },	/* seconds between sums of counters; 1 */
		{ "/proc/sys/vm/compaction_proactiveness", "0" },	/* looks for work twice a second */
		{ "/proc/sys/kernel/watchdog", "0" },	/* each 4 s; the host sees a guest that hangs */
	};

	for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
		(void)file_put(settings[i][0], settings[i][1]);	/* kernels may lack some */
}

static void set_up_machine(const struct conf *conf)
{
	const struct rlimit files = { .rlim_cur = 1024 * 1024, .rlim_max = 1024 * 1024 };

	(void)setrlimit(RLIMIT_NOFILE, &files);
	/* The sessions inherit it: memory is taken from commands, never from them. */
	(void)file_set_oom_score("-1000");
	(void)sethostname(conf->hostname, strlen(conf->hostname));
	freeze_allow();
	be_quiet();
	network_up(conf);
	if (conf->has_clock) {
		struct timespec now = { .tv_sec = (time_t)conf->clock_s,
					.tv_nsec = (long)conf->clock_ns };

		if (clock_settime(CLOCK_REALTIME, &now) < 0)
			say("cannot set the clock", errno);
	}
}

/* ---- service ---- */

static void open_vsock(struct server *server)
{
	int64_t deadline = now_ms() + DEVICE_WAIT_MS;

	server->listen_fd = vsock_listen(AGENT_PORT);
	if (server->listen_fd < 0)
		boot_failed("cannot listen on vsock", NULL, errno);
	do {
		server->first_fd = vsock_connect_host(AGENT_READY_PORT);
		/* Whatever else went wrong, the host can still connect to us. */
		if (server->first_fd >= 0 || errno != ENODEV)
			return;
	} while (wait_more(deadline));
	boot_failed("the machine has no vsock device", NULL, 0);
}

/* Opens /dev/vport0p1 and the like. */
static void open_ports(struct server *server)
{
	int64_t deadline = now_ms() + DEVICE_WAIT_MS;

	do {
		for (unsigned i = 0; i < SERVER_PORTS_MAX * SERVER_PORTS_MAX; i++) {
			struct text path = { .len = 0 };
			int fd;

			text_add(&path, "/dev/vport");
			text_add_num(&path, i / SERVER_PORTS_MAX);
			text_add(&path, "p");
			text_add_num(&path, i % SERVER_PORTS_MAX);
			fd = open(path.str, O_RDWR | O_CLOEXEC | O_NONBLOCK);
			if (fd >= 0 && server->nports < SERVER_PORTS_MAX)
				server->port_fd[server->nports++] = fd;
			else if (fd >= 0)
				close(fd);
		}
	} while (server->nports == 0 && wait_more(deadline));
	if (server->nports == 0)
		boot_failed("the machine has no virtio serial port", NULL, 0);
}

/* Ends all processes: politely for @grace_ms, then not. */
static void end_processes(uint32_t grace_ms)
{
	int64_t deadline = now_ms() + grace_ms;

	if (grace_ms && kill(-1, SIGTERM) == 0)
		do
			while (waitpid(-1, NULL, WNOHANG) > 0)
				;
		while (kill(-1, 0) == 0 && wait_more(deadline));
	(void)kill(-1, SIGKILL);
}

static void ensure_stdio(void)
{
	int fd;

	/* Without a console node the kernel starts us with nothing open. */
	if (fcntl(0, F_GETFD) >= 0)
		return;
	(void)mknod("/null", S_IFCHR | 0600, makedev(1, 3));
	do
		fd = open("/null", O_RDWR);
	while (fd >= 0 && fd < 2);
}

void init_run(void)
{
	static struct conf conf;
	struct server server = { .listen_fd = -1, .first_fd = -1 };
	struct power_request end = { .how = AGENT_POWER_OFF };

	ensure_stdio();
	(void)umask(022);
	read_conf(&conf);
	load_modules();
	if (conf.root != CONF_ROOT_INITRAMFS) {
		mount_root(&conf);
		switch_root();
	}
	mount_kernel_file_systems();
	mount_configured(&conf);
	etc_open();
	etc_write(&conf);
	if (conf.overlay)
		etc_write_machine_id(NULL);
	if (conf.readonly && mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0)
		boot_failed("cannot make the root read-only", NULL, errno);
	set_up_machine(&conf);
	identity_begin(&conf);
	if (conf.vport)
		open_ports(&server);
	else
		open_vsock(&server);
	if (conf.say_ready && write(STDOUT_FILENO, GUEST_READY_LINE, strlen(GUEST_READY_LINE)) < 0)
		say("cannot write to the console", errno);
	if (server_run(&server, &end) < 0)
		boot_failed("cannot serve", NULL, errno);
	end_processes(end.grace_ms);
	power(end.how);
}
