/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM's command has written, kept in files of bounded size:
 *
 *   FOLDER/log.N, log.N+1, ...   the last OUTPUT_FILES of them, the highest is written
 *   file:  record*
 *   record: u32 length | u8 stream | u8 zero[3] | u64 time | bytes[length]
 *
 * All little-endian; time is nanoseconds since 1970 UTC.  A writer that was killed may
 * leave half a record at the end of a file: readers stop before it, and the next writer
 * begins a new file.  A reader holds what it reads open, so that it misses nothing while
 * files are rotated unless it falls behind by all of them.
 */
#ifndef LIFE_OUTPUT_H
#define LIFE_OUTPUT_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OUTPUT_FILES 4u
#define OUTPUT_HEADER 16u	/* bytes */
#define OUTPUT_RECORD_MAX (64u << 10)	/* bytes of data in a record */
#define OUTPUT_DEFAULT_MAX (64ull << 20)	/* bytes in all files */

enum output_stream { OUTPUT_STDOUT = 1, OUTPUT_STDERR = 2 };

struct output_writer {
	char folder[PATH_MAX - 32];
	int fd;	/* -1: none open */
	uint64_t number;	/* of the file written */
	uint64_t size, size_max;	/* bytes, of one file */
	uint64_t dropped;	/* bytes of data that could not be written: disk full */
};

/* Begins a new file after the highest there is.  @max: bytes in all files, 0: the default. */
void output_open(struct output_writer *writer, const char *folder, uint64_t max);
void output_close(struct output_writer *writer);

/* Appends what came at @time_ns.  Never fails: what the disk does not take is counted. */
void output_write(struct output_writer *writer, enum output_stream stream, int64_t time_ns, const void *data,
		  size_t len);

struct output_record {
	const uint8_t *data;	/* borrowed until the next call on the reader */
	uint32_t len;
	uint8_t stream;	/* enum output_stream */
	int64_t time_ns;
};

/*
 * Parses the record at the start of @buf.  Its size in bytes, 0 when it is not all
 * there, -1 when it is damaged.
 */
long output_parse(const uint8_t *buf, size_t len, struct output_record *ret_record);

struct output_reader {
	char folder[PATH_MAX - 32];
	int fd;	/* -1: before the first file */
	uint64_t number;
	uint64_t skip_lines;	/* newlines to pass before anything is given out */
	uint8_t *buf;	/* owned */
	size_t len, at;	/* bytes read, and of them given out */
};

/* Starts before the oldest record there is.  0 or -ENOMEM. */
int output_reader_open(struct output_reader *reader, const char *folder);
void output_reader_close(struct output_reader *reader);

/* 1 and the next record, 0 when there is none (yet). */
int output_read(struct output_reader *reader, struct output_record *ret_record);

/*
 * Goes to where the last @lines lines begin, counting newlines of both streams.  0 or -ENOMEM.
 */
int output_seek_tail(struct output_reader *reader, uint64_t lines);

#endif /* LIFE_OUTPUT_H */
