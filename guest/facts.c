/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/facts.h"

#include "abi/agent.h"
#include "guest/files.h"
#include "guest/text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NS_PER_S 1000000000u
#define COMMAND_MAX 256 /* bytes, NUL included */

bool facts_meminfo(const char *text, const char *name, uint64_t *ret_bytes)
{
	size_t len = strlen(name);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, name, len) != 0 || line[len] != ':')
			continue;
		*ret_bytes = strtoull(line + len + 1, NULL, 10) * 1024;
		return true;
	}
	return false;
}

static uint64_t ns_of_ticks(uint64_t ticks)
{
	return ticks * (NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK));
}

/* "cpu user nice system idle iowait irq softirq steal ...": all but idle and iowait. */
static bool busy_ticks(const char *text, uint64_t *ret_ticks)
{
	char *at;

	if (strncmp(text, "cpu ", 4) != 0)
		return false;
	*ret_ticks = 0;
	at = (char *)(uintptr_t)text + 4;
	for (unsigned i = 0; i < 8; i++) {
		uint64_t v = strtoull(at, &at, 10);

		if (i != 3 && i != 4)
			*ret_ticks += v;
	}
	return true;
}

/* Reads a file of /proc as a string. */
static bool read_text(const char *path, char *buf, size_t size)
{
	ssize_t n = file_read(path, buf, size - 1);

	if (n < 0)
		return false;
	buf[n] = '\0';
	return true;
}

static bool is_number(const char *text)
{
	return text[strspn(text, "0123456789")] == '\0';
}

static uint32_t count_processes(void)
{
	DIR *dir = opendir("/proc");
	struct dirent *e;
	uint32_t n = 0;

	while (dir && (e = readdir(dir)))
		n += is_number(e->d_name);
	if (dir)
		closedir(dir);
	return n;
}

void facts_machine(struct frame_writer *w)
{
	static char text[8192];
	uint64_t v;

	if (read_text("/proc/meminfo", text, sizeof(text))) {
		if (facts_meminfo(text, "MemTotal", &v))
			field_put_u64(w, AGENT_TAG_MEM_TOTAL, v);
		if (facts_meminfo(text, "MemAvailable", &v))
			field_put_u64(w, AGENT_TAG_MEM_AVAILABLE, v);
	}
	if (read_text("/proc/stat", text, sizeof(text)) && busy_ticks(text, &v))
		field_put_u64(w, AGENT_TAG_CPU_NS, ns_of_ticks(v));
	field_put_u32(w, AGENT_TAG_COUNT, count_processes());
}

bool facts_parse_stat(const char *text, struct facts_stat *ret)
{
	const char *open = strchr(text, '('), *close = strrchr(text, ')');
	size_t len;
	char *at;

	if (!open || !close || close < open || close[1] != ' ' || !close[2] || close[3] != ' ')
		return false;
	len = (size_t)(close - open - 1);
	if (len >= sizeof(ret->name))
		len = sizeof(ret->name) - 1;
	memcpy(ret->name, open + 1, len);
	ret->name[len] = '\0';
	at = (char *)(uintptr_t)close + 4;
	ret->ticks = ret->rss_pages = 0;
	/* proc(5): field 4 is ppid, 14 and 15 are utime and stime, 24 is rss. */
	for (unsigned field = 4; field <= 24; field++) {
		uint64_t v = strtoull(at, &at, 10);

		if (field == 4)
			ret->ppid = (uint32_t)v;
		else if (field == 14 || field == 15)
			ret->ticks += v;
		else if (field == 24)
			ret->rss_pages = v;
	}
	return true;
}

static void proc_path(struct text *path, const char *pid, const char *file)
{
	path->len = 0;
	path->str[0] = '\0';
	text_add(path, "/proc/");
	text_add(path, pid);
	text_add(path, file);
}

/* The words of the command line with spaces between; "[name]" when there is none. */
static void read_command(const char *pid, const char *name, char ret[COMMAND_MAX])
{
	struct text path;
	ssize_t n;

	proc_path(&path, pid, "/cmdline");
	n = file_read(path.str, ret, COMMAND_MAX - 1);
	while (n > 0 && ret[n - 1] == '\0')
		n--;
	for (ssize_t i = 0; i < n; i++)
		if ((unsigned char)ret[i] < 0x20)
			ret[i] = ' ';
	if (n > 0) {
		ret[n] = '\0';
		return;
	}
	path = (struct text){ .len = 0 };
	text_add(&path, "[");
	text_add(&path, name);
	text_add(&path, "]");
	memcpy(ret, path.str, path.len + 1);
}

static bool put_process(const char *pid, struct frame_writer *w)
{
	char stat_text[1024], command[COMMAND_MAX];
	struct facts_stat facts;
	struct text path;
	struct stat st;

	proc_path(&path, pid, "/stat");
	/* Kernel threads have no memory; they are not what the user runs. */
	if (!read_text(path.str, stat_text, sizeof(stat_text)) || !facts_parse_stat(stat_text, &facts) || !facts.rss_pages)
		return false;
	proc_path(&path, pid, "");
	if (stat(path.str, &st) < 0)
		return false;
	read_command(pid, facts.name, command);
	field_put_u32(w, AGENT_TAG_PID, (uint32_t)strtoul(pid, NULL, 10));
	field_put_u32(w, AGENT_TAG_PPID, facts.ppid);
	field_put_u32(w, AGENT_TAG_UID, st.st_uid);
	field_put_u64(w, AGENT_TAG_CPU_NS, ns_of_ticks(facts.ticks));
	field_put_u64(w, AGENT_TAG_RSS, facts.rss_pages * (uint64_t)sysconf(_SC_PAGESIZE));
	field_put_str(w, AGENT_TAG_COMMAND, command);
	return true;
}

int facts_open(struct facts_processes *list)
{
	list->dir = opendir("/proc");
	return list->dir ? 0 : -1;
}

void facts_close(struct facts_processes *list)
{
	if (list->dir)
		closedir(list->dir);
	list->dir = NULL;
}

bool facts_next(struct facts_processes *list, struct frame_writer *w)
{
	struct dirent *e;

	while ((e = readdir(list->dir)))
		if (is_number(e->d_name) && put_process(e->d_name, w))
			return true;
	return false;
}
