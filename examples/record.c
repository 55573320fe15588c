/* SPDX-License-Identifier: MPL-2.0 */

/* Records an RTMP publisher as FLV:
 *
 *   record [port [file]]
 *
 * The default port is 1935 and the default file out.flv; port 0 binds any free one. Prints each new epoch, with the time of day where the
 * publisher states it. Ends when the publisher does, or with Ctrl-C, and leaves a complete file in both cases.
 */

#include <gst/gst.h>
#include <signal.h>
#include <glib-unix.h>

typedef struct {
  GMainLoop *loop;
  GstElement *pipeline;
  gboolean failed;
  guint64 epoch;
  /* No time of day was printed in this epoch. */
  gboolean wants_time;
} App;

/* Runs in whatever thread changed the port, which is why it only prints. */
static void
on_port (GObject *source, GParamSpec *pspec, gpointer data)
{
  guint port;

  (void) pspec;
  (void) data;
  g_object_get (source, "current-port", &port, NULL);
  if (port != 0) {
    g_print ("listening on rtmp://127.0.0.1:%u/\n", port);
  }
}

static guint64
buffer_epoch (GstBuffer *buffer)
{
  GstCaps *rtmp = gst_caps_new_empty_simple ("timestamp/x-rtmp");
  GstReferenceTimestampMeta *meta = gst_buffer_get_reference_timestamp_meta (buffer, rtmp);
  guint64 epoch = 0;

  if (meta != NULL) {
    gst_structure_get_uint64 (gst_caps_get_structure (meta->reference, 0), "epoch", &epoch);
  }
  gst_caps_unref (rtmp);
  return epoch;
}

/* Prints the time of day of a buffer. FALSE if the publisher has not stated it. */
static gboolean
print_time_of_day (GstBuffer *buffer)
{
  GstCaps *unix_time = gst_caps_new_empty_simple ("timestamp/x-unix");
  GstReferenceTimestampMeta *meta = gst_buffer_get_reference_timestamp_meta (buffer, unix_time);

  if (meta != NULL) {
    GDateTime *time = g_date_time_new_from_unix_utc (GST_TIME_AS_SECONDS (meta->timestamp));
    gchar *text = g_date_time_format (time, "%Y-%m-%dT%H:%M:%S");

    g_print ("captured %s.%03uZ\n", text, (guint) (GST_TIME_AS_MSECONDS (meta->timestamp) % 1000));
    g_free (text);
    g_date_time_unref (time);
  }
  gst_caps_unref (unix_time);
  return meta != NULL;
}

/* Runs in the streaming thread. */
static GstPadProbeReturn
on_buffer (GstPad *pad, GstPadProbeInfo *info, gpointer data)
{
  App *app = data;
  GstBuffer *buffer;
  guint64 epoch;

  (void) pad;
  /* All buffers of a list are of one epoch. */
  if (GST_PAD_PROBE_INFO_TYPE (info) & GST_PAD_PROBE_TYPE_BUFFER_LIST) {
    buffer = gst_buffer_list_get (GST_PAD_PROBE_INFO_BUFFER_LIST (info), 0);
  } else {
    buffer = GST_PAD_PROBE_INFO_BUFFER (info);
  }
  epoch = buffer_epoch (buffer);
  if (epoch != app->epoch) {
    app->epoch = epoch;
    g_print ("epoch %" G_GUINT64_FORMAT "\n", epoch);
    app->wants_time = TRUE;
  }
  if (app->wants_time && print_time_of_day (buffer)) {
    app->wants_time = FALSE;
  }
  return GST_PAD_PROBE_OK;
}

static gboolean
on_interrupt (gpointer data)
{
  App *app = data;

  gst_element_send_event (app->pipeline, gst_event_new_eos ());
  return G_SOURCE_CONTINUE;
}

static gboolean
on_message (GstBus *bus, GstMessage *message, gpointer data)
{
  App *app = data;

  (void) bus;
  if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_EOS) {
    g_main_loop_quit (app->loop);
  } else if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR) {
    GError *error = NULL;
    gchar *detail = NULL;

    gst_message_parse_error (message, &error, &detail);
    g_printerr ("%s: %s\n%s\n", GST_MESSAGE_SRC_NAME (message), error->message, detail ? detail : "");
    g_clear_error (&error);
    g_free (detail);
    app->failed = TRUE;
    g_main_loop_quit (app->loop);
  }
  return G_SOURCE_CONTINUE;
}

int
main (int argc, char **argv)
{
  App app = { 0 };
  GstElement *source, *sink;
  GstStructure *stats = NULL;
  GstPad *pad;
  GstBus *bus;
  guint64 port = 1935;

  gst_init (&argc, &argv);
  if (argc > 1 && !g_ascii_string_to_unsigned (argv[1], 10, 0, G_MAXUINT16, &port, NULL)) {
    g_printerr ("%s is not a port\n", argv[1]);
    return 2;
  }

  source = gst_element_factory_make ("rtmp2serversrc", NULL);
  sink = gst_element_factory_make ("filesink", NULL);
  if (source == NULL || sink == NULL) {
    g_printerr ("rtmp2serversrc or filesink is not there: is GST_PLUGIN_PATH set?\n");
    return 1;
  }
  g_object_set (source, "port", (guint) port, NULL);
  g_object_set (sink, "location", argc > 2 ? argv[2] : "out.flv", NULL);
  g_signal_connect (source, "notify::current-port", G_CALLBACK (on_port), NULL);

  pad = gst_element_get_static_pad (source, "src");
  gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_BUFFER | GST_PAD_PROBE_TYPE_BUFFER_LIST, on_buffer, &app, NULL);
  gst_object_unref (pad);

  app.loop = g_main_loop_new (NULL, FALSE);
  app.pipeline = gst_pipeline_new (NULL);
  gst_bin_add_many (GST_BIN (app.pipeline), source, sink, NULL);
  if (!gst_element_link (source, sink)) {
    g_printerr ("the elements do not link\n");
    return 1;
  }
  bus = gst_pipeline_get_bus (GST_PIPELINE (app.pipeline));
  gst_bus_add_watch (bus, on_message, &app);
  g_unix_signal_add (SIGINT, on_interrupt, &app);

  /* A failure to start is an error message on the bus. */
  gst_element_set_state (app.pipeline, GST_STATE_PLAYING);
  g_main_loop_run (app.loop);

  g_object_get (source, "stats", &stats, NULL);
  if (stats != NULL && !app.failed) {
    gchar *text = gst_structure_to_string (stats);
    g_print ("%s\n", text);
    g_free (text);
  }
  g_clear_pointer (&stats, gst_structure_free);

  gst_element_set_state (app.pipeline, GST_STATE_NULL);
  gst_bus_remove_watch (bus);
  gst_object_unref (bus);
  gst_object_unref (app.pipeline);
  g_main_loop_unref (app.loop);
  return app.failed ? 1 : 0;
}
