/* SPDX-License-Identifier: Apache-2.0 */
#include "life/events.h"

#include "life/names.h"
#include "life/when.h"
#include "os/file.h"

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void log_path(const struct vms *vms, const char *name, char ret[PATH_MAX])
{
	(void)snprintf(ret, PATH_MAX, "%s/events/%s", vms->data, name);
}

/* ------------------------------------------------------------------ writing */

static cJSON *event_json(const struct vm_record *r, const char *action, const char *detail)
{
	cJSON *json = cJSON_CreateObject();
	char time[WHEN_SIZE], image[256];

	when_format(when_now(), time);
	(void)snprintf(image, sizeof(image), "%s", r->config.image ? r->config.image : "");
	(void)cJSON_AddStringToObject(json, "Time", time);
	(void)cJSON_AddStringToObject(json, "Action", action);
	(void)cJSON_AddStringToObject(json, "Id", r->id);
	(void)cJSON_AddStringToObject(json, "Name", r->name);
	(void)cJSON_AddStringToObject(json, "Image", image);
	(void)cJSON_AddStringToObject(json, "Detail", detail ? detail : "");
	return json;
}

/* Makes room when the file has become long.  Only one process at a time does. */
static void rotate(const struct vms *vms, const char *path)
{
	char lock[PATH_MAX], old[PATH_MAX];
	struct stat st;
	int fd;

	log_path(vms, ".lock", lock);
	log_path(vms, "log.1", old);
	fd = file_lock(lock, true, NULL);
	if (fd < 0)
		return;
	if (stat(path, &st) == 0 && st.st_size > EVENTS_MAX)
		(void)rename(path, old);
	(void)close(fd);
}

void events_add(const struct vms *vms, const struct vm_record *record, const char *action, const char *detail)
{
	cJSON *json = event_json(record, action, detail);
	char *text = cJSON_PrintUnformatted(json), *line = NULL, path[PATH_MAX];
	struct stat st;
	int fd, n;

	cJSON_Delete(json);
	n = text ? asprintf(&line, "%s\n", text) : -1;
	free(text);
	if (n < 0)
		return;
	log_path(vms, "", path);
	(void)mkdir(path, 0700);
	log_path(vms, "log", path);
	fd = n < (int)EVENT_LINE_MAX ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
	if (fd >= 0) {
		(void)!write(fd, line, (size_t)n);
		if (fstat(fd, &st) == 0 && st.st_size > EVENTS_MAX)
			rotate(vms, path);
		(void)close(fd);
	}
	free(line);
}

/* ------------------------------------------------------------------ reading */

static bool copy_text(const cJSON *json, const char *name, char *ret, size_t size)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, name));

	if (!text || strlen(text) >= size)
		return false;
	memcpy(ret, text, strlen(text) + 1);
	return true;
}

bool event_parse(const char *line, size_t len, struct event *ret)
{
	cJSON *json = cJSON_ParseWithLength(line, len);
	char time[WHEN_SIZE];
	bool ok = copy_text(json, "Time", time, sizeof(time)) && when_parse(time, 0, &ret->time_ns) &&
		  copy_text(json, "Action", ret->action, sizeof(ret->action)) &&
		  copy_text(json, "Id", ret->id, sizeof(ret->id)) && vm_id_valid(ret->id) &&
		  copy_text(json, "Name", ret->name, sizeof(ret->name)) &&
		  copy_text(json, "Image", ret->image, sizeof(ret->image)) &&
		  copy_text(json, "Detail", ret->detail, sizeof(ret->detail));

	cJSON_Delete(json);
	return ok;
}

void events_open(struct events_reader *r, const struct vms *vms)
{
	*r = (struct events_reader){ .fd = -1 };
	log_path(vms, "", r->folder);
	(void)mkdir(r->folder, 0700);
}

void events_close(struct events_reader *r)
{
	if (r->fd >= 0)
		(void)close(r->fd);
	r->fd = -1;
}

static int open_log(const struct events_reader *r, const char *name)
{
	char path[PATH_MAX];

	return file_path(path, NULL, r->folder, name, NULL) < 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC);
}

/* True when the file being read is not (or no longer) the one that is written. */
static bool is_left_behind(const struct events_reader *r)
{
	struct stat mine, present;
	char path[PATH_MAX];

	if (r->old)
		return true;
	return file_path(path, NULL, r->folder, "log", NULL) == 0 && fstat(r->fd, &mine) == 0 && stat(path, &present) == 0 &&
	       (mine.st_ino != present.st_ino || mine.st_dev != present.st_dev);
}

/* Goes on to the file that is written now, with the older one first at the beginning. */
static bool next_file(struct events_reader *r)
{
	bool first = r->fd < 0;
	int fd = first ? open_log(r, "log.1") : -1;
	bool old = fd >= 0;

	if (!old && (first || is_left_behind(r)))
		fd = open_log(r, "log");
	if (fd < 0)
		return false;
	events_close(r);
	r->fd = fd;
	r->old = old;
	r->len = 0;
	return true;
}

static bool fill(struct events_reader *r)
{
	ssize_t n;

	if (r->len == sizeof(r->buf))
		r->len = 0;	/* no line is that long: damage */
	n = r->fd < 0 ? 0 : read(r->fd, r->buf + r->len, sizeof(r->buf) - r->len);
	if (n <= 0)
		return false;
	r->len += (size_t)n;
	return true;
}

int events_read(struct events_reader *r, struct event *ret)
{
	for (;;) {
		char *end = memchr(r->buf, '\n', r->len);
		bool ok;

		if (!end) {
			/* Once more after the look at the files: what was written until it was left behind. */
			if (fill(r) || ((r->fd < 0 || is_left_behind(r)) && (fill(r) || next_file(r))))
				continue;
			return 0;
		}
		ok = event_parse(r->buf, (size_t)(end - r->buf), ret);
		r->len -= (size_t)(end + 1 - r->buf);
		memmove(r->buf, end + 1, r->len);
		if (ok)
			return 1;
	}
}
