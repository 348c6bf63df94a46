import java.sql.DriverManager;
import java.sql.SQLException;

/** pgjdbc: the line of docs/clients.md is a URL. */
class Pgjdbc {
  public static void main(String[] arguments) throws InterruptedException {
    var times = Integer.parseInt(System.getenv("TIMES"));
    for (var n = 0; n < times; n++) {
      System.out.println("pgjdbc " + connect(arguments[0]));
      Thread.sleep(500);
    }
  }

  static String connect(String url) {
    try (var connection = DriverManager.getConnection(url);
        var rows = connection.createStatement().executeQuery(System.getenv("QUERY"))) {
      return rows.next() ? "ok " + rows.getString(1) : "failed: no TLS";
    } catch (SQLException error) {
      return "failed " + error.getMessage().replaceAll("\\s+", " ");
    }
  }
}
